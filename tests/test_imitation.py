"""Losses on what is inside a teacher: 0 at equality, without padding, and without a gradient to the teacher."""

import pytest
import torch
import torch.nn.functional as F
from tiny_task import SOFTMAX, TREE, FirstToken

from search.compress.prepare import validate_compression
from search.training.imitation import Imitation, hidden_loss, relation_loss
from search.training.module import TrainingModule
from search.training.settings import TrainSettings
from spaces.augmentation.tokens import TokenDropout
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Batch

PADDING = torch.arange(5) >= torch.tensor([5, 3, 1])[:, None]
LOSSES = {
    "hidden": lambda state, expected, padding: hidden_loss([state], [expected], padding),
    "relations": relation_loss,
}


def states(seed, width=6):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("padding", [None, PADDING], ids=["whole", "padded"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_is_zero_at_equality_and_above_elsewhere(loss, padding):
    assert loss(states(0), states(0), padding) == pytest.approx(0, abs=1e-12)
    assert loss(states(0), states(1), padding) > 1e-3


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_neither_content_nor_amount_of_padding_changes_a_loss(loss):
    state, expected = states(0), states(1)
    wrong = [each.masked_fill(PADDING[..., None], value) for each, value in ((state, 1e6), (expected, -7.0))]
    torch.testing.assert_close(loss(*wrong, PADDING), loss(state, expected, PADDING))
    longer = [F.pad(each, (0, 0, 0, 2), value=3.0) for each in (state, expected)]
    more = F.pad(PADDING, (0, 2), value=True)
    torch.testing.assert_close(loss(*longer, more), loss(state, expected, PADDING))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_gradient_flows_to_the_teacher(loss):
    state, expected = states(0).requires_grad_(), states(1).requires_grad_()
    loss(state, expected, PADDING).backward()
    assert state.grad.abs().sum() > 0
    assert (state.grad[PADDING] == 0).all()
    assert expected.grad is None


def test_relations_are_the_cosines_of_pairs_of_tokens_which_scale_and_rotation_do_not_change():
    state, expected = states(0), states(1, width=4)
    pairs = []
    for row, mask in enumerate(PADDING):
        tokens = [at for at in range(5) if not mask[at]]
        for a in tokens:
            for b in tokens:
                ours, theirs = (F.cosine_similarity(each[row, a], each[row, b], dim=0) for each in (state, expected))
                pairs.append((ours - theirs) ** 2)
    torch.testing.assert_close(relation_loss(state, expected, PADDING), torch.stack(pairs).mean())
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    assert relation_loss(3 * state @ rotation, state, PADDING) == pytest.approx(0, abs=1e-10)


def test_hidden_states_of_all_blocks_count():
    state, expected = states(0), states(1)
    both = hidden_loss([state, state], [state, expected], PADDING)
    assert both == pytest.approx(float(hidden_loss([state], [expected], PADDING)) / 2)


@pytest.mark.parametrize("name", ["hidden", "relations"])
def test_a_training_imitates_its_parent_and_does_not_change_it(name):
    task = FirstToken()
    network, parent = (build(SOFTMAX, task, seed=seed) for seed in (0, 1))
    parent.eval()
    weights = {key: value.clone() for key, value in parent.state_dict().items()}
    settings = TrainSettings(epochs=1, lr=0.01, distillation=1.0, **{name: 2.0})
    module = TrainingModule(
        network, task, settings, seed=0, epochs_done=0, optimizer_state=None, teacher=None, parent=parent
    )
    module.train()
    assert not parent.training
    batch = next(task.batches("train", 8))
    loss, plain = module._loss(batch), task.loss(network(batch), batch)
    with torch.no_grad():
        ours, theirs = network.hidden_states(batch)[0], parent.hidden_states(batch)[0]
        added = hidden_loss(ours, theirs, None) if name == "hidden" else relation_loss(ours[-1], theirs[-1], None)
    torch.testing.assert_close(loss, plain + 2 * added)
    loss.backward()
    assert all(each.grad is None for each in parent.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in parent.state_dict().items())
    logits, difference = Imitation(settings, network)(network, batch)
    torch.testing.assert_close(logits, network(batch))
    assert float(difference.detach()) == pytest.approx(0, abs=1e-10)


def test_a_batch_of_which_tokens_are_left_out_still_numbers_its_examples():
    batch = Batch(torch.ones(3, 5, dtype=torch.int64), PADDING, torch.zeros(3), indices=torch.tensor([7, 0, 4]))
    dropped = TokenDropout(0.3, removes=True)(batch)
    assert dropped.indices.tolist() == [7, 0, 4], "a teacher's predictions are found by them"


@pytest.mark.parametrize("name", ["hidden", "relations"])
def test_without_a_compression_there_is_nothing_to_imitate(name):
    space = Space({**TREE, "train": {**TREE["train"], name: 0.5}})
    with pytest.raises(ConfigError, match=f"train.{name}=0.5: it is for spaces with the section compression"):
        validate_compression(space, None)
    with pytest.raises(ValueError, match=f"{name}=-1"):
        TrainSettings(epochs=1, lr=0.1, **{name: -1})
