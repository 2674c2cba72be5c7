"""Augmentation of batches: each against a slow reference or a property that every draw must have."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from spaces.augmentation import AugmentSettings, augmentations, unsupported
from spaces.augmentation.frames import FrameAugmentation, random_intervals, shift_frames
from spaces.augmentation.images import ERASED_AREA, ImageAugmentation, erase, warp
from spaces.augmentation.mixing import mixup
from spaces.augmentation.tokens import TokenDropout
from spaces.tasks import IGNORE_INDEX, Batch, TaskSpec
from spaces.tasks.copying import Copying
from spaces.tasks.digits import Digits
from spaces.tasks.multitask import Multitask
from spaces.tasks.patches import Patches
from spaces.tasks.recall import Recall
from spaces.tasks.sources.image_patches import Grid, extract_patches, merge_patches
from spaces.tasks.speech import Speech
from spaces.tasks.tts import Tts


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


IMAGES = torch.rand(60, 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_merged_patches_are_the_image():
    assert torch.equal(merge_patches(extract_patches(IMAGES, 2), 2, 3, 6, 8), IMAGES)


def test_a_shifted_image_repeats_its_border():
    padded = F.pad(IMAGES, (2, 2, 2, 2), mode="replicate")
    shifted, found = warp(IMAGES, shift=2, flip=0.0, crop=1.0), set()
    for row, image in enumerate(shifted):
        offsets = [
            (y, x)
            for y, x in itertools.product(range(5), repeat=2)
            if torch.allclose(image, padded[row, :, y : y + 6, x : x + 8], atol=1e-4)
        ]
        assert len(offsets) == 1
        found.update(offsets)
    assert len(found) > 15, "of 25 shifts"


def test_a_flipped_image_is_mirrored_left_to_right():
    torch.testing.assert_close(warp(IMAGES, shift=0, flip=1.0, crop=1.0), IMAGES.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(IMAGES, shift=0, flip=0.0, crop=1.0), IMAGES, atol=1e-5, rtol=0)
    flipped = (warp(IMAGES, shift=0, flip=0.5, crop=1.0) - IMAGES).abs().flatten(1).amax(1) > 1e-3
    assert 15 < flipped.sum() < 45, "of 60 images"


def test_a_crop_has_at_least_the_smallest_area():
    ramps = torch.stack(torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij"))  # row and column number
    cropped = warp(ramps.expand(200, 2, 30, 40), shift=0, flip=0.0, crop=0.3)
    # In the middle, where the border does not matter, a row number grows by the height of the crop, relative to 1.
    heights = cropped[:, 0, 20, 20] - cropped[:, 0, 19, 20]
    widths = cropped[:, 1, 15, 20] - cropped[:, 1, 15, 19]
    areas = heights * widths
    assert ((areas >= 0.3 - 1e-3) & (areas <= 1 + 1e-3)).all()
    assert areas.min() < 0.4
    assert areas.max() > 0.9
    assert 1.2 < (widths / heights).max() <= 4 / 3 + 1e-3
    assert (cropped[:, 0].amin() >= 0) & (cropped[:, 0].amax() <= 29)


def test_erasing_replaces_one_rectangle():
    images, shares = torch.zeros(200, 2, 20, 30), []
    erased = erase(images, 0.5, torch.ones_like(images))
    for image in erased:
        assert torch.equal(image[0], image[1])
        if image.any():
            rows, columns = image[0].amax(1), image[0].amax(0)
            assert torch.equal(image[0], rows[:, None] * columns)
            for side in (rows, columns):
                assert (side.diff() != 0).sum() <= 2, "an interval"
            shares.append(image[0].mean().item())
    assert 60 < len(shares) < 140, "of 200 images"
    assert ERASED_AREA[0] / 2 < min(shares) < 0.06
    assert 0.25 < max(shares) < ERASED_AREA[1] * 1.2


@pytest.mark.parametrize("patch", [2, None])
def test_images_keep_their_form(patch):
    grid = Grid(height=6, width=8, channels=1, patch=patch)
    inputs = grid.tokens(torch.randint(256, (50, 1, 6, 8), dtype=torch.uint8))
    augment = ImageAugmentation(grid.shape, grid.spec(3), shift=1, flip=0.5, crop=0.5, erase=1.0)
    augmented = augment(Batch(inputs, None, torch.zeros(50))).inputs
    assert (augmented.shape, augmented.dtype) == (inputs.shape, inputs.dtype)
    low, high = (0, 255) if patch is None else (-1 - 1e-6, 1 + 1e-6)
    assert low <= augmented.min() < augmented.max() <= high
    assert not torch.equal(augmented, inputs)
    unchanged = ImageAugmentation(grid.shape, grid.spec(3), shift=0, flip=0.0, crop=1.0, erase=0.0)
    assert torch.equal(unchanged(Batch(inputs, None, torch.zeros(50))).inputs, inputs)


LENGTHS = torch.tensor([10, 10, 7, 1]).repeat(50)[:, None]


def test_an_interval_lies_within_its_row():
    masks = random_intervals(10, LENGTHS, 1, 0.4)
    widths = masks.sum(1)
    for mask, length in zip(masks, LENGTHS[:, 0].tolist(), strict=True):
        at = mask.nonzero()[:, 0]
        assert len(at) <= math.floor(0.4 * length)
        assert at.tolist() == list(range(int(at[0]), int(at[-1]) + 1)) if len(at) else True
        assert not len(at) or at[-1] < length
    assert set(widths.tolist()) == {0, 1, 2, 3, 4}
    assert masks[:, 0].any()
    assert masks[:, 9].any()
    assert (random_intervals(10, LENGTHS, 3, 0.4).sum(1) > 4).any()


def test_frames_are_shifted_within_their_length():
    frames = torch.arange(1.0, 11.0)[:, None].expand(len(LENGTHS), 10, 2).clone()
    frames[torch.arange(10) >= LENGTHS] = 0.0
    found = set()
    for row, length in zip(shift_frames(frames, LENGTHS, 0.3), LENGTHS[:, 0].tolist(), strict=True):
        options = {
            shift: [float(min(max(at - shift, 0), length - 1) + 1) if at < length else 0.0 for at in range(10)]
            for shift in range(-3, 4)
        }
        (shift,) = [shift for shift, expected in options.items() if row[:, 0].tolist() == expected][:1]
        assert torch.equal(row[:, 0], row[:, 1])
        assert abs(shift) <= round(0.3 * length) or length == 1
        found.add(shift)
    assert found == set(range(-3, 4))


def test_masked_frames_are_0_in_whole_rows_and_columns():
    padding = torch.arange(10) >= LENGTHS
    batch = Batch(torch.ones(200, 10, 6).masked_fill(padding[:, :, None], 0.0), padding, torch.zeros(200))
    augment = FrameAugmentation(time_shift=0.0, time_masks=1, time_mask=0.5, band_masks=1, band_mask=0.5)
    augmented = augment(batch)
    for frames, length in zip(augmented.inputs, LENGTHS[:, 0].tolist(), strict=True):
        kept = frames[:length]
        assert torch.equal(kept, kept.amax(1, keepdim=True) * kept.amax(0, keepdim=True))
    assert torch.equal(augmented.padding, padding)


def token_batch(labels):
    inputs = torch.randint(2, 50, (100, 20))
    padding = torch.arange(20) >= torch.randint(1, 19, (100, 1))
    return Batch(inputs.masked_fill(padding, 0), padding, labels)


def test_removed_tokens_leave_a_subsequence():
    batch = token_batch(torch.arange(100))
    augmented = TokenDropout(0.4, removes=True)(batch)
    kept = 0
    for row in range(100):
        before = batch.inputs[row][~batch.padding[row]].tolist()
        after = augmented.inputs[row][~augmented.padding[row]].tolist()
        assert after[0] == before[0]
        remaining = iter(before)
        assert all(token in remaining for token in after), "a subsequence"
        assert (augmented.padding[row].diff().int() >= 0).all(), "padding at the end"
        kept += len(after) - 1
    total = int((~batch.padding).sum()) - 100
    assert kept / total == pytest.approx(0.6, abs=0.08)
    assert torch.equal(augmented.labels, batch.labels)
    assert not augmented.padding.all(0).any(), "no superfluous padding"


def test_replaced_tokens_are_other_tokens_of_the_batch():
    labels = torch.randint(50, (100, 20))
    batch = token_batch(labels)
    augmented = TokenDropout(0.3, removes=False)(batch)
    changed = augmented.inputs != batch.inputs
    assert not changed[batch.padding].any()
    assert changed[~batch.padding].float().mean() == pytest.approx(0.3 * 47 / 48, abs=0.05)
    assert augmented.inputs[~batch.padding].min() >= 2, "padding is no token"
    assert torch.equal(augmented.labels, labels)
    assert augmented.padding is batch.padding


def test_the_first_token_is_left_if_all_are_removed():
    batch = Batch(torch.arange(12).view(3, 4), None, torch.arange(3))
    augmented = TokenDropout(1.0, removes=True)(batch)
    assert augmented.inputs.tolist() == [[0], [4], [8]]
    assert augmented.padding is None


def test_mixed_examples_are_the_weighted_means_of_two():
    inputs, padding = torch.randn(8, 5, 3), torch.arange(5) >= torch.randint(1, 6, (8, 1))
    labels = torch.arange(8)
    batch, others, share = mixup(Batch(inputs, padding, labels), 0.5)
    assert 0 <= share <= 1
    assert sorted(others.tolist()) == labels.tolist()
    for row, other in enumerate(others.tolist()):
        first, second = (inputs[at] * ~padding[at][:, None] for at in (row, other))
        torch.testing.assert_close(batch.inputs[row], share * first + (1 - share) * second)
        assert torch.equal(batch.padding[row], padding[row] & padding[other])
    assert torch.equal(batch.labels, labels)
    pixels = mixup(Batch(torch.randint(17, (8, 64)), None, labels), 1.0).batch.inputs
    assert pixels.dtype == torch.int64
    assert 0 <= pixels.min() < pixels.max() <= 16


IMAGE = {"shift": 1, "flip": 0.5, "crop": 0.5, "erase": 0.1}
FRAMES = {"time_masks": 1, "band_masks": 1}
TASKS = {
    "patches": (Patches(), {**IMAGE, "mixup": 0.2}),
    "digits": (Digits(), {**IMAGE, "mixup": 0.2}),
    "speech": (Speech(), FRAMES),
    "recall": (Recall(), {"token_dropout": 0.1}),
    "copying": (Copying(), {"token_dropout": 0.1}),
    "tts": (Tts(), {}),
    "multitask": (Multitask(tasks={"a": Digits(), "b": Patches()}), {}),
}
ALL = {**IMAGE, **FRAMES, "time_shift": 0.1, "token_dropout": 0.1, "mixup": 0.2}


@pytest.mark.parametrize(("task", "fitting"), TASKS.values(), ids=list(TASKS))
def test_only_augmentations_that_fit_the_task_are_accepted(task, fitting):
    for name, value in ALL.items():
        problems = unsupported(AugmentSettings(**{name: value}), task)
        if name in fitting:
            assert problems == []
        else:
            (problem,) = problems
            assert problem.startswith(f"{name}={value!r}: it is for ")
            assert type(task).__name__ in problem
    batch = task.sample(4)
    for augment in augmentations(AugmentSettings(**fitting), task):
        batch = augment(batch)
    assert len(batch.inputs) == 4
    assert augmentations(AugmentSettings(), task) == []


def test_labels_of_tokens_are_kept_where_they_are():
    spec = TaskSpec(length=4, vocabulary=9, classes=9, per_token=True, causal=True)
    task = Copying()
    task.spec = spec
    labels = torch.tensor([[IGNORE_INDEX, 3, 4, 5]])
    (augment,) = augmentations(AugmentSettings(token_dropout=0.9), task)
    assert torch.equal(augment(Batch(torch.tensor([[1, 2, 3, 4]]), None, labels)).labels, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shift": -1}, "shift=-1: it must be a whole number from 0"),
        ({"flip": 1.5}, "flip=1.5: it must be a number of 0 to 1"),
        ({"crop": 0.0}, "crop=0.0: it must be a number of 0.05 to 1"),
        ({"token_dropout": 1.0}, "token_dropout=1.0: it must be a number of 0 to 0.9"),
        ({"mixup": -0.1}, "mixup=-0.1: it must be a number from 0"),
        ({"time_mask": math.nan}, "time_mask=nan"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AugmentSettings(**settings)
