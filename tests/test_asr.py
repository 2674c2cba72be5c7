"""Speech recognition: generated data, decoding, loss and error rates, against slow references."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from spaces.tasks import IGNORE_INDEX, SPLITS, Batch
from spaces.tasks.asr import Asr
from spaces.tasks.sources.transcription import BLANK, Errors, edit_distance, min_frames
from spaces.tasks.synthetic.formants import character_formants
from spaces.tasks.synthetic.lexicon import lexicon_of

TASK = Asr(train=20, validation=10, test=10)


def transcripts(task: Asr, labels: torch.Tensor) -> list[str]:
    return ["".join(task.alphabet[at - 1] for at in row.tolist() if at != IGNORE_INDEX) for row in labels]


def constant_network(logits: torch.Tensor) -> Callable[[Batch], torch.Tensor]:
    return lambda _: logits


def spelled(task: Asr, *rows: str) -> torch.Tensor:
    """Logits whose argmax spells these characters; ``-`` is a blank."""
    frames = [[task.alphabet.find(letter) + 1 for letter in row] for row in rows]
    return 100.0 * torch.nn.functional.one_hot(torch.tensor(frames), task.spec.classes)


def test_transcripts_consist_of_words_of_the_lexicon_and_differ_in_length() -> None:
    lexicon = set(lexicon_of(40, TASK.alphabet, seed=0))
    assert all(2 <= len(word) <= 5 for word in lexicon)
    assert all(one != other for word in lexicon for one, other in itertools.pairwise(word))
    for split in SPLITS:
        _, padding, labels, *_ = TASK.examples(split)
        assert {word for transcript in transcripts(TASK, labels) for word in transcript.split(" ")} <= lexicon
        assert padding is not None
        lengths = (~padding).sum(1).tolist()
        assert len(set(lengths)) > 5
        for transcript, length in zip(transcripts(TASK, labels), lengths, strict=True):
            assert 4 * len(transcript) <= length <= min(8 * len(transcript), TASK.spec.length)


def test_frames_are_the_sounds_of_the_transcript_in_one_voice() -> None:
    """Frames outside of transitions match the templates of one voice, in the order of the transcript."""
    task = Asr(noise=0.0, validation=20)
    frames, padding, labels, *_ = task.examples("validation")
    assert padding is not None
    known = character_formants(len(task.alphabet), task.bands).tolist()

    def template(sound: int, voice: float) -> torch.Tensor:
        first, second = known[sound]
        bands = range(task.bands)
        return torch.tensor(
            [math.exp(-((b - first) ** 2) / 2) + math.exp(-((b - second - voice) ** 2) / 2) for b in bands]
        )

    voices = [at / 20 for at in range(-40, 41)]
    templates = torch.stack([torch.stack([template(sound, voice) for sound in range(len(known))]) for voice in voices])
    templates = templates / templates.norm(dim=-1, keepdim=True)
    found, total = 0, 0
    for row, padded, transcript in zip(frames, padding, transcripts(task, labels), strict=True):
        spectra = row[~padded] / row[~padded].norm(dim=-1, keepdim=True)
        similarity = torch.einsum("tb,vsb->vts", spectra, templates)
        pure = similarity.amax(2) > 0.999
        in_order = []
        for letters, kept in zip(similarity.argmax(2), pure, strict=True):
            text = [task.alphabet[letter] for letter, _ in itertools.groupby(letters[kept].tolist())]
            in_order.append(len(text) if edit_distance(text, transcript) == len(transcript) - len(text) else 0)
        assert not all(in_order), "the transcript is found in one voice only"
        found, total = found + max(in_order), total + len(transcript)
    assert found > 0.6 * total, "or hardly anything was checked"


@pytest.mark.parametrize(
    ("frames", "text"),
    [("---", ""), ("aab-b", "abb"), ("-a--a-", "aa"), ("a a", "a a"), ("aaaa", "a"), ("b", "b"), ("ab-  -c", "ab c")],
)
def test_repeated_frames_are_one_character_unless_separated_by_a_blank(frames: str, text: str) -> None:
    assert TASK.decode(spelled(TASK, frames), None) == [text]
    padding = torch.arange(len(frames) + 2)[None] >= len(frames)
    assert TASK.decode(spelled(TASK, f"{frames}cd"), padding) == [text], "padding is not decoded"


def test_the_ctc_loss_sums_over_all_alignments() -> None:
    logits = torch.randn(3, 5, TASK.spec.classes, generator=torch.Generator().manual_seed(0))
    padding = torch.arange(5) >= torch.tensor([[5], [4], [3]])
    transcript = ["ab", "aa", "b"]
    batch = Batch(torch.zeros(3, 5, TASK.bands), padding, TASK.encode(transcript, 5))
    expected = []
    for row, padded, text in zip(logits, padding, transcript, strict=True):
        likely = row[~padded].softmax(-1)
        ways = torch.tensor(list(itertools.product(range(4), repeat=len(likely))))  # blank, space, a and b
        sure = torch.nn.functional.one_hot(ways, TASK.spec.classes).float()
        right = torch.tensor([decoded == text for decoded in TASK.decode(sure, None)])
        total = likely[torch.arange(len(likely)), ways[right]].prod(1).sum()
        expected.append(-math.log(total) / len(text))
    assert TASK.loss(logits, batch).item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_the_ctc_loss_of_a_transcript_that_is_too_long_is_zero() -> None:
    logits = torch.zeros(1, 2, TASK.spec.classes, requires_grad=True)
    loss = TASK.loss(logits, Batch(torch.zeros(1, 2, TASK.bands), None, TASK.encode(["aa"], 2)))
    assert min_frames("aa") == 3
    assert loss.item() == 0


def test_error_rates_count_edits_of_words_and_characters() -> None:
    batch = Batch(torch.zeros(2, 7, TASK.bands), None, TASK.encode(["ab c", "ab"], 7))
    judged = TASK.eval_step(constant_network(spelled(TASK, "ab-b  c", "a-b----")), batch)
    assert judged == Errors(1, 3, 1, 6)
    nothing = TASK.eval_step(constant_network(spelled(TASK, "-------", "-------")), batch)
    assert TASK.compute_metrics([nothing])["word_error_rate"] == TASK.chance
    assert TASK.compute_metrics([judged, nothing]) == {"word_error_rate": 4 / 6, "character_error_rate": 7 / 12}
    assert BLANK == 0


def slow_edit_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        slow_edit_distance(a[1:], b) + 1,
        slow_edit_distance(a, b[1:]) + 1,
        slow_edit_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_the_edit_distance_is_minimal() -> None:
    words = ["".join(letters) for n in range(4) for letters in itertools.product("ab", repeat=n)] + ["abcab", "bcbcc"]
    for a, b in itertools.product(words, words):
        assert edit_distance(a, b) == slow_edit_distance(a, b)
    assert edit_distance(["go", "on"], ["go", "away", "on"]) == 1
