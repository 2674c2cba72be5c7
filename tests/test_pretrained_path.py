"""The path of a first user: a checkpoint that transformers trained and saved, a search from it, an export, its use."""

import json

import pytest
import torch
from checkpoints import write_byte_tokenizer
from PIL import Image
from sklearn.datasets import load_digits
from test_run import command  # noqa: F401 - a fixture
from tokenizers import Tokenizer

from search.export.__main__ import main as export
from search.front import main as show_front
from search.programs.inference import load
from search.programs.inference import main as predict
from spaces.models.checkpoint import Checkpoint

QUICK = ["tracking=none", "n_trials=3", "workers=1", "study=mine", "space.train.epochs=1"]
QUICK += ["space.compression.parent.epochs=1", "space.compression.steps=2", "space.compression.predicted=3"]


def train(model, name, inputs, labels, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        at = torch.arange(32 * step, 32 * step + 32) % len(labels)
        loss = model(labels=labels[at], **{name: inputs[at]}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def front_of(folder):
    """The rows of the stored front."""
    assert show_front(["mine", "--export", str(folder / "front.json")]) == 0
    return json.loads((folder / "front.json").read_text())


def is_whole(row):
    """Whether nothing is left out of a network."""
    model = row["architecture"]["model"]
    kept = row["architecture"]["pattern"], list(model["feed_forward"].values()), model["quantization"]
    return kept == (["softmax"] * 2, [1.0] * 2, "none")


@pytest.mark.slow
def test_a_vision_transformer_is_searched_exported_and_used(command, capsys):  # noqa: F811
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for at in range(400):
        file = command.folder / "digits" / str(digits.target[at]) / f"{at}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[at].numpy() * 15.9).astype("uint8")).convert("RGB").save(file)
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4
    )
    config.num_labels = 10
    model = transformers.ViTForImageClassification(config)
    pixels = (images[:, None].expand(-1, 3, -1, -1) / 16 - 0.5) / 0.5
    train(model, "pixel_values", pixels, torch.tensor(digits.target), 30)
    model.save_pretrained("vit")
    (command.folder / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    task = ["task=images", "task.folder=digits", "task.side=16"]
    code, out, _ = command("+space=pretrained", "space.model.checkpoint=vit", *task, *QUICK)
    assert code == 0, out
    assert "The front: " in out
    rows = front_of(command.folder)
    assert len(rows) > 1
    assert min(row["latency_ms"] for row in rows) < max(row["latency_ms"] for row in rows)
    assert export(["mine", "--knee", "--to", "model"]) == 0
    capsys.readouterr()
    code = predict(["model", "digits/3/3.png", "--json"])
    assert code == 0, capsys.readouterr().err
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] in map(str, range(10))


@pytest.mark.slow
def test_a_language_model_is_searched_exported_and_continues_texts(command, capsys):  # noqa: F811
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    words = ["the house", "another day", "then it rained", "other things"]
    for at in range(40):
        text = " and ".join(words[(at * n) % 4] for n in range(1, 30))
        (command.folder / "texts").mkdir(exist_ok=True)
        (command.folder / "texts" / f"{at}.txt").write_text(f"{text}, {at}.\n")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=258, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    config.bos_token_id = config.eos_token_id = None
    model = transformers.GPT2LMHeadModel(config)
    (command.folder / "gpt2").mkdir()
    write_byte_tokenizer(command.folder / "gpt2" / "tokenizer.json")
    tokenizer = Tokenizer.from_file("gpt2/tokenizer.json")
    text = "".join(path.read_text() for path in sorted((command.folder / "texts").iterdir()))
    ids = torch.tensor(tokenizer.encode(text).ids).unfold(0, 48, 16)
    train(model, "input_ids", ids, ids, 40)
    model.save_pretrained("gpt2")
    task = ["task.folder=texts", "task.length=48", "task.generate=8", "task.train=60"]
    code, out, _ = command("+space=pretrained_generation", "space.model.checkpoint=gpt2", *task, *QUICK)
    assert code == 0, out
    assert "bits_per_byte" in out
    members = front_of(command.folder)
    assert any(map(is_whole, members))
    best = min(members, key=lambda row: row["bits_per_byte"])
    assert best["bits_per_byte"] < 5, "of 8 without any training"
    assert export(["mine", "--pick", str(best["trial"]), "--to", "model"]) == 0
    model = load("model")
    assert len(model.generate(["and the house"], 30)[0]) == 30
    capsys.readouterr()
    (command.folder / "prompts.txt").write_text("and the house\n")
    assert predict(["model", "prompts.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] > 0
    assert Checkpoint("gpt2").ties_head
