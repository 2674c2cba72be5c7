"""The export of translators and speech recognisers: the folder alone gives the answers of the network."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from exported import export_network
from tiny_task import SOFTMAX

from search.programs.decoding import greedy, transcript
from search.programs.inference import load, main
from search.training.evaluation import evaluate_split
from spaces.baselines.nearest import NearestSequences
from spaces.tasks import BOS, EOS
from spaces.tasks.asr import Asr
from spaces.tasks.translation import FIRST, Translation

PAIRS = {"train": 60, "validation": 8, "test": 8, "clauses": 2}
TRANSLATOR = {
    **SOFTMAX,
    "model": {"_target_": "spaces.models.seq2seq.Seq2Seq", "depth": 1, "width": 8, "heads": 2},
    "roles": {"decoder": "softmax", "cross": "softmax"},
}
COPIES = {**TRANSLATOR, "model": {**TRANSLATOR["model"], "copies": True, "tied": True}}
RECOGNISER = Asr(length=80, train=16, validation=4, test=6)
EXPORTS = {
    "words": (TRANSLATOR, lambda: Translation(**PAIRS)),
    "bpe": (COPIES, lambda: Translation(**PAIRS, tokens="bpe", vocabulary=300)),
    "neighbours": ({**COPIES, "input": {"neighbours": 2}}, lambda: Translation(**PAIRS)),
    "frames": (SOFTMAX, lambda: RECOGNISER),
}
ALONE = """
import sys
sys.modules |= dict.fromkeys(["search", "spaces", "torch", "sklearn", "scipy"])  # these cannot be imported
sys.path.insert(0, sys.argv[1])
from inference import main
sys.exit(main())
"""


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    """The folder, the network, the task and the results."""
    architecture, make = EXPORTS[request.param]
    folder, network, task, results = export_network(architecture, make(), tmp_path_factory.mktemp(request.param))
    # Of a network that copies and whose tables are tied, onnxruntime cannot load the program in integers.
    assert {result.runtime for result in results if result.problem} <= {"onnxruntime-int8"}
    return folder, network, task, results


def examples_and_answers(network, task):
    """The raw examples of the test split, and what the network answers."""
    batch = task.data("test").select(torch.arange(task.data("test").size))
    if isinstance(task, Asr):
        frames = [row[: int(n)].numpy() for row, n in zip(batch.inputs, batch.lengths, strict=True)]
        with torch.no_grad():
            return frames, [{"transcript": text} for text in task.decode(network(batch), batch.padding)]
    ids = network.generate(batch, task.spec.answer_length)
    return task.contents("test"), [{"translation": task.text(row)} for row in ids]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_program_gives_the_answers_of_the_network(exported, runtime):
    folder, network, task, _ = exported
    examples, expected = examples_and_answers(network, task)
    model = load(folder, runtime=runtime)
    assert model.predict(examples) == expected
    assert [model.predict([example])[0] for example in examples] == expected


@pytest.mark.slow
def test_programs_have_the_metrics_of_the_network(exported):
    _, network, task, results = exported
    expected = evaluate_split(network, task, "test")
    found = {result.runtime: result.test for result in results if result.runtime != "onnxruntime-int8"}
    assert {"eager", "torch", "onnxruntime"} <= found.keys()
    for metrics in found.values():
        assert metrics == pytest.approx(expected)


@pytest.mark.slow
def test_the_folder_alone_answers_the_examples_of_a_file(exported, tmp_path, capsys):
    folder, network, task, _ = exported
    examples, expected = examples_and_answers(network, task)
    if isinstance(task, Asr):
        file, examples = tmp_path / "frames.npy", examples[:1]
        np.save(file, np.stack(examples))
    else:
        file = tmp_path / "texts.txt"
        file.write_text("\n".join(examples), encoding="utf-8")
    assert main([str(folder), str(file), "--json"]) == 0
    assert answers(capsys.readouterr().out) == expected[: len(examples)]
    command = [sys.executable, "-B", "-c", ALONE, str(folder), str(file), "--json"]
    run = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert answers(run.stdout) == expected[: len(examples)]


def answers(output):
    """Those of lines of JSON."""
    rows = [json.loads(line) for line in output.splitlines()]
    return [{name: value for name, value in row.items() if name != "input"} for row in rows]


@pytest.mark.slow
def test_longer_texts_than_those_of_the_data_are_truncated_before_and_after_the_lookup(exported):
    folder, _, task, _ = exported
    if not getattr(task, "neighbours", 0):
        pytest.skip("it looks up nothing")
    sources, targets = task.ids["train"]
    longest, most = max(map(len, sources)), task.spec.length
    text = " ".join([task.contents("test")[0]] * 9)
    kept = [FIRST + number for number in task.encoder.encode([text])[0]][:longest]
    at = NearestSequences(sources).find([kept], 2)[0]
    expected = [*kept, *(token for each in at for token in (BOS, *targets[each], EOS))][:most]
    assert load(folder).encode([text])[0].tolist() == expected


def test_transcripts_are_those_of_the_task():
    logits = torch.randn(20, 40, RECOGNISER.spec.classes, generator=torch.Generator().manual_seed(0))
    logits[..., :3] += 2  # blanks and repetitions
    assert [transcript(row.numpy(), RECOGNISER.alphabet) for row in logits] == RECOGNISER.decode(logits, None)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_greedy_decoding_takes_the_largest_logit_after_the_tokens_before_it(ignore_eos):
    following = np.random.default_rng(0).integers(6, size=(3, 9, 6))  # of each sequence, by position and token
    following[:, 4:] = EOS

    def decode(ids):
        return np.eye(6)[following[np.arange(3)[:, None], np.arange(9), ids]]

    expected = []
    for row in range(3):
        ids = [BOS]
        while len(ids) < 9:
            ids.append(EOS if EOS in ids else int(following[row, len(ids) - 1, ids[-1]]))
        expected.append(ids[1:])
    found = greedy(decode, 3, 8, 9, ignore_eos=ignore_eos)
    width = 8 if ignore_eos else max(row.index(EOS) for row in expected) + 1
    assert found.tolist() == [row[:width] for row in expected]
