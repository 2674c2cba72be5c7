"""The preprocessing of an exported folder, in numpy, against what the task itself does."""

import json

import numpy as np
import pytest
from audio_files import tone, write_audio, write_recordings
from image_files import pixels, write_images
from PIL import Image
from text_tables import write_table
from tokenizers import processors

from search.export.preprocessing import preprocessing
from search.programs.encoders import ENCODERS, read_examples
from search.programs.inference import Model
from spaces.tasks.arrays import Arrays
from spaces.tasks.digits import Digits
from spaces.tasks.images import Images
from spaces.tasks.recordings import Recordings
from spaces.tasks.sources.learned_tokens import learn
from spaces.tasks.sources.text_windows import SUFFIXES
from spaces.tasks.table import Table
from spaces.tasks.text import Text


def encoder_of(task, folder):
    """The encoder that an exported folder of the task has."""
    settings, tokenizer = preprocessing(task)
    settings = json.loads(json.dumps({**settings, "length": task.spec.length}))
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return ENCODERS[settings["kind"]](settings, folder)


def assert_alike(task, raw, folder, *, atol=0.0):
    """The tokens of ``raw``, the inputs of the test split in its order, are those of the task."""
    encode, examples = encoder_of(task, folder), task.data("test")
    lengths = examples.lengths
    for row, given in enumerate(raw):
        expected = examples.inputs[row]
        if lengths is not None:
            expected = expected[: lengths[row]]
        found = encode(given)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected.numpy(), atol=atol, rtol=0)


TOKENS = ["bytes", "characters", "words", "bpe", "wordpiece", "unigram", "subwords"]
ROWS = [(f"Nº {at} Ünï-code、猫が{at}匹, GOOD\u00a0or_bad? {'x' * at}", at % 3) for at in range(60)]


@pytest.mark.parametrize("lowercase", [None, False])
@pytest.mark.parametrize("tokens", TOKENS)
def test_texts_become_the_tokens_of_the_task(tmp_path, tokens, lowercase):
    file = write_table(tmp_path / "a.csv", ROWS)
    settings = {"tokens": tokens, "length": 30, "lowercase": None if tokens == "bytes" else lowercase}
    task = Table(file=str(file), text="review", label="stars", **settings)
    assert_alike(task, [each.text for each in task.rows["test"]], tmp_path)


@pytest.mark.parametrize("special_tokens", [True, False])
def test_texts_become_the_tokens_of_a_tokenizer_file(tmp_path, special_tokens):
    tokenizer = learn("words", 60, [text for text, _ in ROWS])
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    (tmp_path / "given").mkdir()
    tokenizer.save(str(tmp_path / "given" / "tokenizer.json"))
    file = write_table(tmp_path / "a.csv", ROWS)
    task = Table(file=str(file), text="review", label="stars", tokens=str(tmp_path / "given" / "tokenizer.json"))
    task = task.with_input(special_tokens=special_tokens, length=9)
    assert_alike(task, [each.text for each in task.rows["test"]], tmp_path)


def test_windows_of_files_become_the_tokens_of_the_task(tmp_path):
    for name in ("a", "b"):
        for number in range(12):
            file = tmp_path / "texts" / name / f"{number}{SUFFIXES[1]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name} {number} words and more of them" * 3)
    task = Text(folder=str(tmp_path / "texts"), tokens="words", length=64)
    assert_alike(task, [content[: task.window].decode() for _, content in task.rows("test")], tmp_path)


@pytest.mark.parametrize(
    ("settings", "suffix"),
    [
        ({"side": 12, "patch": 4}, ".png"),
        ({"side": 12, "patch": 5}, ".png"),  # which does not divide the side
        ({"side": 9, "patch": 3, "channels": "gray"}, ".jpg"),  # resized
        ({"side": 8, "patch": None, "channels": "gray"}, ".png"),
    ],
)
def test_images_become_the_tokens_of_the_task(tmp_path, settings, suffix):
    folder = write_images(tmp_path / "images", suffix=suffix)
    task = Images(folder=str(folder), **settings)
    assert_alike(task, [folder / file for file in task.files["test"]], tmp_path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "1", "CMYK"])
def test_images_of_other_modes_become_the_tokens_of_the_task(tmp_path, mode):
    folder = write_images(tmp_path / "images")
    task = Images(folder=str(folder), side=8, patch=4)
    given = pixels(1, 10, 13, 4)
    if mode == "I;16":
        image = Image.fromarray(given[..., 0].astype(np.uint16) * 200)
    else:
        image = Image.fromarray(given, "RGBA").convert(mode)
    name = tmp_path / ("image.tif" if mode in ("I;16", "CMYK") else "image.png")
    image.save(name)
    expected = task.grid.tokens(task._read(name)[None])[0].numpy()
    np.testing.assert_array_equal(encoder_of(task, tmp_path)(name), expected)


def test_arrays_of_pixels_become_the_tokens_of_the_task(tmp_path):
    images, _ = Digits().read_images("test")
    assert_alike(Digits(), images[:20, 0], tmp_path)
    shown = np.random.default_rng(0).integers(256, size=(40, 6, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", inputs=shown, labels=np.arange(40) % 2)
    task = Arrays(file=str(tmp_path / "a.npz"), patch=2)
    assert_alike(task, np.moveaxis(task.parts["test"].inputs, 1, 3), tmp_path)


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_recordings_become_the_frames_of_the_task(tmp_path, rate):
    folder = write_recordings(tmp_path / "audio")
    task = Recordings(folder=str(folder), seconds=0.08, rate=rate, bands=12)  # some are longer, others shorter
    # The task computes in single precision, whose error a logarithm enlarges in bands without energy.
    assert_alike(task, [folder / file for file in task.files["test"]], tmp_path, atol=2e-3)


def test_flac_and_samples_give_the_frames_of_the_same_wav_file(tmp_path):
    task = Recordings(folder=str(write_recordings(tmp_path / "audio")), seconds=0.08, bands=12)
    encode, values = encoder_of(task, tmp_path), tone(700, 0.07)
    write_audio(tmp_path / "a.wav", values)
    write_audio(tmp_path / "a.flac", values)
    expected = encode(tmp_path / "a.wav")
    np.testing.assert_allclose(encode(tmp_path / "a.flac"), expected, atol=1e-6)
    np.testing.assert_allclose(encode((np.rint(values * 32767) / 32768, 16_000)), expected, atol=1e-6)


SETTINGS = {
    "kind": "tokens",
    "class_names": ["no", "yes"],
    "per_token": False,
    "features": None,
    "length": 8,
    "multiple": 2,
    "least": 4,
    "padded": True,
    "free_length": True,
}


def counting(feed):
    """Logits that say whether the sum of the ids that are no padding is above 10."""
    assert feed["inputs"].shape[1] in (4, 6, 8)
    total = np.where(feed["padding"], 0, feed["inputs"]).sum(1)
    return np.stack([np.zeros(len(total)), total - 10.0], axis=1)


def test_examples_of_all_lengths_are_answered_in_their_order(tmp_path):
    model = Model(counting, SETTINGS, tmp_path)
    examples = [np.full(length, 4) for length in (5, 1, 8, 2, 3)]
    assert [each["label"] for each in model.predict(examples)] == ["yes", "no", "yes", "no", "yes"]
    assert model.predict(examples)[1]["probability"] == pytest.approx(1 / (1 + np.exp(-6)))
    assert [len(each) for each in model.logits(examples, batch_size=2)] == [2] * 5
    assert model.predict([]) == []
    with pytest.raises(ValueError, match="9 tokens; the model takes 8 at most"):
        model.predict([np.zeros(9, int)])


def test_a_model_without_padding_refuses_other_lengths(tmp_path):
    model = Model(counting, {**SETTINGS, "padded": False}, tmp_path)
    with pytest.raises(ValueError, match="3 tokens; the model takes 4"):
        model.predict([np.zeros(3, int)])


def test_files_of_every_kind_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    (tmp_path / "a.csv").write_text('id,review\n1,"a, ""b"""\n')
    (tmp_path / "a.tsv").write_text("review\tid\nx, y\t1\n")
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))

    def read(name, kind="text", column="review"):
        return [example for _, example in read_examples(tmp_path / name, kind, column)]

    assert read("a.txt") == ["one", " two "]
    assert read("a.csv") == ['a, "b"']
    assert read("a.tsv") == ["x, y"]
    assert np.array(read("a.npy", "tokens")).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read("a.txt", "image") == [tmp_path / "a.txt"]
    assert len(read(".", "audio")) == 4
    with pytest.raises(ValueError, match="no column 'text'; it has id, review"):
        read("a.csv", column="text")
    with pytest.raises(ValueError, match=r"takes a \.npy file"):
        read("a.txt", "tokens")
