"""The benchmark: its statistics, its tables, what it reports as skipped, and one run on short sequences."""

import csv
import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from spaces.attention import Shape
from spaces.batch import Batch
from spaces.bench import decoding, measure, memory
from spaces.bench.__main__ import argument_parser, main
from spaces.bench.implementations import IMPLEMENTATIONS, select
from spaces.bench.measure import (
    PASSES,
    BenchConfig,
    Measurement,
    Subject,
    calls_per_sample,
    measure_in_rounds,
    probe,
    seconds_per_call,
)
from spaces.bench.report import crossover_length, ratio, tables

CONF = Path(__file__).parents[1] / "conf" / "attention"
SMALL = BenchConfig(batch=2, width=8, heads=2, dtype=torch.float32, device="cpu", threads=1)
OURS = [each for each in IMPLEMENTATIONS if not each.label]


def test_every_mechanism_is_measured_and_names_are_unique():
    assert {each.mechanism for each in OURS} == {path.stem for path in CONF.glob("*.yaml")}
    assert len({each.name for each in IMPLEMENTATIONS}) == len(IMPLEMENTATIONS)
    settings = {each.setting for each in OURS}
    assert all(each.setting in settings for each in IMPLEMENTATIONS), (
        "each package is compared with an implementation of ours"
    )


@pytest.mark.parametrize("each", OURS, ids=lambda each: each.name)
@pytest.mark.parametrize("length", [2, 17])
def test_our_implementations_run_on_short_and_odd_lengths(each, length):
    subject = Subject(each, SMALL, length)
    assert subject.module.causal == each.causal
    y = subject.forward()
    assert y.shape == subject.x.shape
    assert not y.requires_grad
    gradients = subject.forward_backward()
    assert len(gradients) == 1 + len(list(subject.module.parameters()))
    assert gradients[0].abs().sum() > 0
    assert all(p.grad is None for p in subject.module.parameters()), "gradients must not accumulate between calls"


@pytest.mark.parametrize("each", [each for each in IMPLEMENTATIONS if each.label], ids=lambda each: each.name)
@pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated:DeprecationWarning")  # performer-pytorch
def test_packages_map_sequences_to_the_same_shape_and_are_causal_if_named_so(each):
    if not each.installed:
        pytest.skip(f"{each.package} is not installed")
    length = 12 * 64 if each.mechanism == "bigbird" else 32
    subject = Subject(each, dataclasses.replace(SMALL, batch=1), length)
    assert subject.forward().shape == subject.x.shape
    to_input, *_ = subject.forward_backward()
    assert to_input.abs().sum() > 0
    if each.causal:
        (at_the_start,) = torch.autograd.grad(subject.module(subject.x)[0, 3].sum(), subject.x)
        assert not at_the_start[0, 4:].any()


@pytest.mark.parametrize("mode", ["dense", "random", "factorised"])
def test_written_out_synthesizers_equal_ours(mode):
    by_name = {each.name: each for each in IMPLEMENTATIONS}
    ours, theirs = (
        Subject(by_name[f"synthesizer-{mode}{label}"], SMALL, 17).forward() for label in ("", "/written-out")
    )
    torch.testing.assert_close(ours, theirs)


def test_select_accepts_mechanisms_settings_and_implementation_names():
    always = [each.name for each in OURS if each.mechanism == "softmax"]
    assert [each.name for each in select(["fnet"])] == [*always, "fnet"]
    assert {each.name for each in select(["reformer-1"])} == {*always, "reformer-1", "reformer-1/reformer-pytorch"}
    assert select([]) == list(IMPLEMENTATIONS)
    with pytest.raises(ValueError, match=r"--only fnett: it must be .*linformer"):
        select(["fnett", "linformer"])


@pytest.mark.parametrize(
    ("ratios", "length"),
    [
        ({128: 2.0, 512: 0.5}, "256"),  # halfway on both logarithmic axes
        ({100: 3.0, 200: 1.5, 400: 0.75, 800: 0.375}, "300"),  # 300 / length
        ({128: 0.9, 256: 1.2, 512: 0.5}, "296"),  # slower again at 256: the last crossover counts
        ({128: 1.5, 256: 0.9, 512: 1.2, 1024: 0.3}, "561"),
        ({128: 0.9, 256: 0.4}, "<= 128"),
        ({128: 1.0, 256: 0.4}, "<= 128"),
        ({128: 3.0, 256: 1.1}, "> 256"),
        ({512: 0.5, 128: 2.0}, "256"),
        ({}, "-"),
    ],
)
def test_crossover_length_is_interpolated_on_logarithmic_axes(ratios, length):
    assert crossover_length(ratios) == length


def test_a_ratio_is_the_median_of_the_ratios_per_round():
    """A round that is ten times as slow for both has no effect on it, unlike on the ratio of the means."""
    spread = ratio([2.0, 30.0, 4.0, 2.0, 1.0], [1.0, 10.0, 1.0, 1.0, 1.0])
    assert (spread.median, spread.low, spread.high) == (2.0, 2.0, 3.0)
    assert ratio([3.0], [2.0]) == dataclasses.replace(spread, median=1.5, low=1.5, high=1.5)


def test_tables_show_ratios_to_softmax_and_speedups_over_packages():
    def measured(seconds):
        return Measurement({name: [seconds, 2 * seconds] for name in PASSES}, peak_bytes=3_000_000)

    wanted = select(["linformer"])
    results = {
        ("softmax", 64): measured(0.5),
        ("softmax-causal", 64): measured(0.25),
        ("linformer", 64): measured(0.125),
        ("linformer/linformer", 64): measured(0.375),
    }
    lines = tables(wanted, [64, 128], results).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("forward: times")))
    assert lines[start + 2].split() == ["softmax", "750", "ms", "-"]
    assert lines[start + 4].split() == ["linformer", "0.25", "(0.25-0.25)", "-"]
    start = lines.index("forward: how many times as fast as a package")
    assert lines[start + 2].split() == ["linformer", "over", "linformer", "3", "(3-3)", "-"]
    assert lines[-2].split() == ["linformer", "<=", "64", "<=", "64"]


class Clock:
    """A fake clock that advances only in calls."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(measure.time, "process_time", lambda: self.now)

    def call(self, name, seconds):
        def call():
            self.calls.append(name)
            self.now += seconds

        return call


def test_seconds_per_call_is_the_mean_over_calls(monkeypatch):
    clock = Clock(monkeypatch)
    assert seconds_per_call(clock.call("a", 0.25), 8, "cpu") == 0.25
    assert len(clock.calls) == 8


def test_rounds_are_interleaved_and_short_calls_repeated(monkeypatch):
    clock = Clock(monkeypatch)

    class Fake:
        def __init__(self, name, seconds):
            self.called = {each: clock.call(f"{name} {each}", seconds) for each in PASSES}

        def passes(self):
            return self.called

    seconds = measure_in_rounds({"a": Fake("a", 0.5), "b": Fake("b", 0.0625)}, 3, "cpu", lambda text: None)
    assert seconds == {name: dict.fromkeys(PASSES, [s] * 3) for name, s in (("a", 0.5), ("b", 0.0625))}
    in_one_round = [f"a {each}" for each in PASSES] + [f"b {each}" for each in PASSES for _ in range(2)]
    assert clock.calls[-3 * len(in_one_round) :] == 3 * in_one_round


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 0.003, 0.05, 0.1, 7.0])
def test_a_sample_has_as_many_calls_as_it_needs(seconds):
    calls = calls_per_sample(seconds)
    assert calls >= 1
    assert calls * max(seconds, 1e-6) >= measure.LEAST_SAMPLE_S
    assert seconds == 0 or calls == 1 or calls * seconds <= measure.LEAST_SAMPLE_S + 1.5 * seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds=0: it must be above 0"),
        (["--lengths", "64", "1"], "--lengths 1: it must be at least 2"),
        (["--heads", "3"], "--width=128 --heads=3: heads must divide width"),
        (["--only", "lonformer"], "--only lonformer: it must be a mechanism"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_readmes_commands_have_valid_arguments():
    text = (CONF.parents[1] / "spaces" / "attention" / "README.md").read_text()
    commands = re.findall(r"^(?:\w+=\d+ )*python -m spaces\.bench(.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        select(argument_parser().parse_args(command.split()).only)


@torch.inference_mode()
def test_every_mechanism_that_decodes_takes_a_step_after_the_text():
    length = 9
    found = decoding.steps(Shape(8, 2, length, causal=True), 1)
    readme = (CONF.parents[1] / "spaces" / "attention" / "README.md").read_text()
    expected = set(re.findall(r"^\| `(\w+)`.*\| yes\S* \| \S+ \|$", readme, re.MULTILINE))
    assert {name.partition("-")[0] for name in found} == expected
    ids = torch.arange(length)[None]
    for step in found.values():
        logits = step.func.__self__(Batch(ids, None, ids))[:, -1]
        torch.testing.assert_close(step()[0], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@torch.inference_mode()
def test_steps_of_the_peer_leave_its_cache_as_it_was():
    step = decoding.peer_step(Shape(8, 2, 5, causal=True), 1)
    torch.testing.assert_close(step(), step())


def test_the_least_of_interleaved_rounds_is_the_time_of_a_step(monkeypatch):
    clock = Clock(monkeypatch)
    subjects = {"a": clock.call("a", 0.25), "b": clock.call("b", 0.5)}
    assert decoding.measure(subjects, 3) == {"a": 250_000, "b": 500_000}
    assert clock.calls[-6:] == ["a", "b"] * 3


def test_what_is_no_operator_is_the_share_of_python():
    matrix = torch.ones(300, 300)
    assert decoding.python_share(lambda: sum(range(1000))) == 1
    assert 0 < decoding.python_share(lambda: matrix @ matrix) < 1


@pytest.mark.parametrize(("argument", "message"), [("--length=0", "--length=0: it must"), ("--heads=3", "must divide")])
def test_decoding_refuses_invalid_arguments(argument, message, capsys):
    assert decoding.main([argument]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow  # the first child process imports torch
def test_a_run_writes_its_results_and_reports_what_it_skips(capsys, tmp_path):
    arguments = ["--batch", "2", "--width", "8", "--heads", "2", "--rounds", "2", "--out", str(tmp_path)]
    assert main(["--lengths", "16", "32", "--only", "synthesizer-random", "fnet", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "skipped" not in printed
    assert "MALLOC_MMAP_THRESHOLD_=" in printed
    rows = list(csv.DictReader((tmp_path / "bench.csv").read_text().splitlines()))
    names = {"softmax", "softmax-causal", "synthesizer-random", "synthesizer-random/written-out", "fnet"}
    assert {(row["implementation"], row["length"], row["pass"]) for row in rows} == {
        (name, length, pass_) for name in names for length in ("16", "32") for pass_ in PASSES
    }
    assert all(float(row["ms"]) > 0 and float(row["peak_mb"]) >= 0 for row in rows)
    assert all(float(row["ratio"]) == 1 for row in rows if row["implementation"] == "softmax")
    page = (tmp_path / "bench.html").read_text()
    assert "synthesizer-random over written-out" in page
    assert page.count("<svg ") == 4
    assert page.count("<title>synthesizer-random/written-out</title>") >= 3, "its memory may be too little to measure"
    assert "<script" not in page

    assert main(["--lengths", "16", "32", "--only", "fnet", "--limit", "1e-9", *arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.count("fnet is skipped: a pass takes") == 2
    assert "at length 16" in printed
    assert "at length 32" not in printed
    assert printed.count("1 measured in 2 rounds") == 2, "softmax is measured however slow it is"


@pytest.mark.slow
def test_probe_returns_the_error_or_the_peak_memory_of_a_pass():
    (linformer, fnet, written_out) = (
        next(each for each in IMPLEMENTATIONS if each.name == name)
        for name in ("linformer", "fnet", "softmax/written-out")
    )
    assert "heads must divide width" in probe(linformer, dataclasses.replace(SMALL, heads=3), 16, 1.0)
    seconds, peak = probe(written_out, SMALL, 1024, 10.0)
    logits = 2 * 2 * 1024**2 * 4
    assert 2 * logits <= peak < 8 * logits
    assert seconds > 0
    assert probe(fnet, SMALL, 1024, 10.0)[1] < logits


@pytest.mark.parametrize("data", memory.COUNTS)
def test_the_memory_of_large_data_is_measured_on_stored_examples(data, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))  # restored after the command has set it
    monkeypatch.setattr("spaces.tasks.images.LARGE", 1)
    monkeypatch.setattr("spaces.tasks.sources.labelled_texts.LARGE", 1)
    assert memory.main([data, "--count", "200"]) == 0
    found = re.fullmatch(rf"200 {data}, 5 training batches: peak memory (\d\.\d\d) GiB\n", capsys.readouterr().out)
    assert float(found[1]) > 0
