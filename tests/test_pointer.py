"""The pointer-generator output against a slow mixture of two distributions."""

import pytest
import torch
import torch.nn.functional as F

from spaces.models.pointer import COPY_BIAS, MATCHES, OUTSIDE, PointerGenerator, latest_ids

WIDTH, CLASSES, N, M = 8, 11, 9, 5


@pytest.fixture
def case():
    """A pointer, features and ids of output tokens, logits, features and ids of sources, and a padding mask."""
    torch.manual_seed(0)
    pointer = PointerGenerator(WIDTH)
    with torch.no_grad():
        pointer.match_scores.copy_(torch.tensor([0.5, 1.0, 2.0, 0.3, 0.7]))
        pointer.query.weight.normal_()
        pointer.copy_logit.weight.normal_()
    padding = torch.arange(N) >= torch.tensor([[N], [6], [1]])
    ids, outputs = torch.randint(4, (3, N)), torch.randint(4, (3, M))
    tensors = (torch.randn(3, M, WIDTH), 3 * torch.randn(3, M, CLASSES), torch.randn(3, N, WIDTH))
    x, logits, source = (tensor.requires_grad_() for tensor in tensors)
    return pointer, x, outputs, logits, source, ids, padding


def mixture(pointer, x, outputs, logits, source, ids, padding):
    """The probabilities (1 - g) softmax(logits) + g copied, of one token of one sample after another."""
    rows = []
    for sample in range(len(x)):
        n = int((~padding[sample]).sum())
        for at in range(M):
            scores = []
            for j in range(n):
                score = pointer.query(x[sample, at]) @ pointer.key(source[sample, j]) / WIDTH**0.5
                for back in range(MATCHES):
                    before = ids[sample, j - 1 - back] if j > back else OUTSIDE
                    latest = outputs[sample, at - back] if at >= back else OUTSIDE
                    if before != latest:
                        break
                    score = score + pointer.match_scores[back]
                scores.append(score)
            g = pointer.copy_logit(x[sample, at]).sigmoid()
            row = (1 - g) * logits[sample, at].softmax(0)
            for j, share in enumerate(torch.stack(scores).softmax(0)):
                row = row + g * share * F.one_hot(ids[sample, j], CLASSES)
            rows.append(row)
    return torch.stack(rows).view(len(x), M, CLASSES)


def test_the_output_and_its_gradients_are_those_of_a_mixture(case):
    pointer, x, outputs, logits, source, ids, padding = case
    weights = [x, logits, source, *pointer.parameters()]
    encoded = pointer.encode_source(source, ids, padding)
    log_probabilities = pointer(x, latest_ids(outputs), logits, encoded).log_softmax(-1)
    expected = mixture(*case)
    torch.testing.assert_close(expected.sum(-1), torch.ones(3, M))
    torch.testing.assert_close(log_probabilities.exp(), expected)
    labels = torch.randint(CLASSES, (3, M, 1))
    losses = (log_probabilities.gather(2, labels).sum(), expected.log().gather(2, labels).sum())
    for given, wanted in zip(*(torch.autograd.grad(loss, weights) for loss in losses), strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def test_gradients_are_finite_where_a_distribution_has_almost_no_mass(case):
    pointer, x, outputs, logits, source, ids, padding = case
    encoded = pointer.encode_source(1e3 * source, ids, padding)
    output = pointer(x, latest_ids(outputs), 1e3 * logits, encoded)
    output.log_softmax(-1).sum().backward()
    assert output.isfinite().all()
    assert x.grad.isfinite().all()


def test_an_untrained_pointer_continues_a_passage_that_has_begun():
    pointer = PointerGenerator(WIDTH)
    source = torch.tensor([[3, 4, 5, 0, 4, 6, 7, 4, 8]])
    for output, following in (([0], 4), ([0, 4], 6), ([0, 4, 6], 7), ([3, 4], 5), ([0, 4, 6, 7, 4], 8)):
        encoded = pointer.encode_source(torch.zeros(1, 9, WIDTH), source, None)
        latest = latest_ids(torch.tensor([output]))[:, -1:]
        probabilities = pointer(torch.zeros(1, 1, WIDTH), latest, torch.zeros(1, 1, CLASSES), encoded).softmax(-1)
        assert probabilities.argmax() == following
        assert probabilities.max() > 0.8 * torch.tensor(COPY_BIAS).sigmoid()
