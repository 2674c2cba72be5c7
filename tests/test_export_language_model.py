"""The export of a language model: its folder continues texts and scores them as the network does."""

import json
import subprocess
import sys

import pytest
import torch
from checkpoints import write_gpt2, write_llama
from exported import export_network

from search.export.rebuild import SpecAlone, network_of
from search.programs.inference import load, main
from search.programs.program import ExportError
from search.programs.step import check_step, write_steps
from search.training.evaluation import evaluate_split
from spaces.build import build
from spaces.spec import TaskSpec
from spaces.tasks import Batch
from spaces.tasks.text import Text

LENGTH, PROMPTS = 16, ["d", "def main(", "a text that is longer than the windows"]
ARCHITECTURE = {
    "model": {"_target_": "spaces.models.decoder.Decoder", "depth": 1, "width": 8, "heads": 2},
    "pattern": ["softmax"],
    "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
    "train": {"epochs": 1},
}
BYTE_PAIRS = {"tokens": "byte_bpe", "vocabulary": 270}


@pytest.fixture(scope="module", params=["bytes", "byte_bpe"])
def exported(request, tmp_path_factory):
    """The folder, the network and the task; generated texts end in a window, and one file is a few bytes long."""
    architecture = ARCHITECTURE if request.param == "bytes" else {**ARCHITECTURE, "input": BYTE_PAIRS}
    folder = tmp_path_factory.mktemp("language")
    (folder / "texts").mkdir()
    for number in range(20):
        (folder / "texts" / f"{number}.txt").write_text(f"line {number} of a text\n" * (number % 5) + "the end")
    task = Text(folder=str(folder / "texts"), predict="next_byte", length=LENGTH, generate=4)
    found = export_network(architecture, task, folder)
    assert [result.problem for result in found[-1] if result.problem] == []
    return found


def logits_after(network, ids):
    """The logits ``(256,)`` of the byte after ``ids``."""
    inputs = torch.tensor([ids])
    with torch.no_grad():
        return network(Batch(inputs, None, inputs))[0, -1]


def continued(exported, text, count):
    """The slow reference: the network reads the latest tokens again for each new one."""
    folder, network, task, _ = exported
    spelling = load(folder)._token_bytes
    ids = task.encoder.encode([text])[0].tolist()
    before = len(ids)
    for _ in range(count):  # bytes, so there are at most as many tokens
        ids.append(int(logits_after(network, ids[-task.spec.length :]).argmax()))
    return b"".join(spelling[at] for at in ids[before:])[:count].decode(errors="replace")


@pytest.mark.slow
def test_the_bytes_of_the_tokens_of_a_text_are_the_text(exported):
    folder, _, task, _ = exported
    spelling = load(folder)._token_bytes
    assert len(spelling) == task.spec.vocabulary
    for text in ("".join(map(chr, range(0x800))), "the end of a text", "한국어 \N{SNOWMAN} \N{PARTY POPPER}"):
        (ids,) = task.encoder.encode([text])
        assert b"".join(spelling[at] for at in ids) == text.encode()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_texts_are_continued_as_by_the_network(exported, runtime):
    folder, *_ = exported
    expected = [continued(exported, text, 20) for text in PROMPTS]
    assert load(folder, runtime=runtime).generate(PROMPTS, 20) == expected


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_text_within_the_length_is_continued_token_by_token(exported, runtime):
    folder, network, _, _ = exported
    model = load(folder, runtime=runtime)
    model._run = None  # the program that reads the whole text
    most = model.settings["length"]
    assert model.generate(["d"], most) == [continued(exported, "d", most)]
    with torch.no_grad():
        network.head.bias += 1
        with pytest.raises(ExportError, match="differ by 1"):
            check_step(network, folder, runtime, model.settings["state"])
        network.head.bias -= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "setting", "keys", "steps"),
    [
        ("softmax", {"rope": True}, 1, ["torch", "onnxruntime"]),
        ("linear", {}, 1, ["torch", "onnxruntime"]),
        ("gated", {}, 1, ["torch", "onnxruntime"]),
        ("delta", {}, 1, ["torch", "onnxruntime"]),
        (
            "performer",
            {"features": 4},
            100,
            ["torch", "onnxruntime"],
        ),  # all below e^-100, and a largest one begins at minus infinity
        ("longformer", {"window": 2}, 1, []),  # the cache stops growing
        ("topk", {"k": 3}, 1, []),
    ],
)
def test_caches_have_step_programs_also_with_ngrams(mechanism, setting, keys, steps, tmp_path):
    target = f"spaces.attention.{mechanism}.{mechanism.capitalize()}Attention"
    model = {**ARCHITECTURE["model"], "ngrams": 3, "buckets": 7}
    architecture = {"model": model, "pattern": [mechanism], "attention": {mechanism: {"_target_": target, **setting}}}
    spec = TaskSpec(length=9, classes=11, per_token=True, vocabulary=11, causal=True)
    network = network_of({**architecture, "train": {}}, SpecAlone(spec))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(keys if ".key." in name else 1)
    assert write_steps(network, tmp_path)[0] == steps
    assert len(list(tmp_path.iterdir())) == len(steps)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_checkpoints_have_step_programs_that_give_the_logits_of_the_whole_text(kind, tmp_path):
    write = write_llama if kind == "llama" else write_gpt2
    model = {
        "_target_": "spaces.models.pretrained_decoder.PretrainedDecoder",
        "checkpoint": str(write(tmp_path / "checkpoint")),
        **{"depth": 3, "width": 12, "heads": 2},
    }
    attention = {
        "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention", "rope": kind == "llama"},
        "linear": {"_target_": "spaces.attention.linear.LinearAttention"},
        "none": {"_target_": "spaces.models.block.NoAttention"},
    }
    spec = TaskSpec(length=12, classes=258, per_token=True, vocabulary=258, causal=True)
    architecture = {"model": model, "pattern": [*attention], "attention": attention, "train": {}}
    network = build(architecture, SpecAlone(spec)).eval()
    runtimes, shapes = write_steps(network, tmp_path)
    assert runtimes == ["torch", "onnxruntime"]
    assert [check_step(network, tmp_path, runtime, shapes) < 1e-4 for runtime in runtimes] == [True, True]


@pytest.mark.slow
def test_bits_per_byte_are_those_of_the_task(exported):
    folder, network, task, results = exported
    expected = evaluate_split(network, task, "test")["bits_per_byte"]
    model, rows = load(folder), [content for _, content in task.rows("test")]
    spelt = [len(row) - task._bytes_of[task.encoder.encode([row.decode()])[0][0]] for row in rows]
    bits = [model.bits_per_byte(row.decode()) * size for row, size in zip(rows, spelt, strict=True)]
    assert sum(bits) / sum(spelt) == pytest.approx(expected, abs=1e-4)
    found = {result.runtime: result.test["bits_per_byte"] for result in results}
    assert found.pop("onnxruntime-int8") == pytest.approx(expected, abs=0.1)
    assert {"eager", "torch", "onnxruntime"} <= found.keys()
    assert found == pytest.approx(dict.fromkeys(found, expected), abs=1e-4)
    assert model.bits_per_byte("a") is None


@pytest.mark.slow
def test_draws_follow_the_softmax_and_the_seed(exported):
    folder, network, task, _ = exported
    model = load(folder)
    drawn = [model.generate(["de"], 1, temperature=2.0, seed=seed)[0] for seed in range(300)]
    assert drawn[:20] == [model.generate(["de"], 1, temperature=2.0, seed=seed)[0] for seed in range(20)]
    assert model.generate(["de"], 5, temperature=1e-6) == model.generate(["de"], 5)
    shares = (logits_after(network, task.encoder.encode(["de"])[0].tolist()) / 2.0).softmax(-1)
    spelt_ascii = [at for at, spelling in enumerate(model._token_bytes) if spelling[:1].isascii()]
    ascii_share = sum(each.isascii() for each in drawn) / len(drawn)
    assert ascii_share == pytest.approx(float(shares[spelt_ascii].sum()), abs=0.12)  # four standard deviations


@pytest.mark.slow
def test_the_command_continues_the_lines_of_a_file(exported, tmp_path, capsys):
    folder, *_ = exported
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    assert main([str(folder), str(tmp_path / "prompts.txt"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["input"] for each in answers] == PROMPTS
    assert [each["continuation"] for each in answers] == [continued(exported, text, 100) for text in PROMPTS]
    command = [sys.executable, "-B", str(folder / "inference.py"), str(tmp_path / "prompts.txt")]
    run = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert run.stdout.startswith(PROMPTS[0] + answers[0]["continuation"])
