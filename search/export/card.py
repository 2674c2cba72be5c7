"""The model card of an exported folder: what the model is, how good and how fast, and how it came about."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from search.costs.runtimes import quantization_of
from search.export.folder import Result
from search.programs.encoders import NEIGHBOURS
from search.programs.sessions import STEPS
from search.report.intervals import Sample
from search.study.confirmations import Repetition
from search.study.records import Objectives, Record
from search.training.weights import read_tensors
from spaces.architecture import describe
from spaces.fingerprint import fingerprint
from spaces.models.quantization import BY_PROGRAM, LAYERS
from spaces.models.sparsity import DENSE
from spaces.tasks import Task
from spaces.tasks.translation import Translation

PACKAGES = ("paretoformer", "torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "tokenizers", "numpy")


@dataclass(frozen=True)
class Origin:
    """Where an exported model comes from."""

    study: str
    trial: Record
    objectives: Objectives
    identity: Mapping[str, Any]  # the settings of the study
    command: str
    repetitions: Sequence[Repetition]  # trainings with other seeds


def card(origin: Origin, task: Task, settings: Mapping[str, Any], results: Sequence[Result], part: str = "") -> str:
    """The card in Markdown.

    Args:
        origin: of the model.
        task: with the input that the model takes.
        settings: of ``inference.py``.
        results: of the network and its programs.
        part: which of several tasks this is.
    """
    trial, metric = origin.trial, origin.objectives.metric
    names = settings["class_names"]
    language_model = settings["language_model"]
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    lines = [
        f"# {origin.study}, trial {trial.number}" + (f": {part}" if part else ""),
        "",
        f"{_article(settings)}, exported by Paretoformer: {describe(trial.architecture)}.",
        "",
        *([f"- Classes: {listed}"] if names and not language_model else []),
        f"- Input: {_describe_input(settings)}",
        f"- Data: `{_given(origin.identity['task'])}`",
        f"- Fingerprint of the data (SHA-256 of all examples as tokens, with their labels): `{fingerprint(task)}`",
        f"- Seed of the training: {origin.identity['seed']}; precision: {origin.identity.get('precision', '32-true')}",
        f"- Parameters: {trial.costs['parameters']:.0f}",
        "",
        "## Metrics",
        "",
        "| metric | validation | test |",
        "|---|---|---|",
        *_metric_rows(trial),
        "",
        f"The study chose by {metric} on validation, so that of validation is optimistic. {_repeated(origin)}",
        "",
        "## Programs",
        "",
        f"| run-time | file | free dimensions | largest error | {task.metric} on test | latency |",
        "|---|---|---|---|---|---|",
        *(_program_row(result, task.metric) for result in results),
        "",
        "The largest error is that of a logit, compared with the network on random inputs. The latency is the"
        f" minimum of one example of full length on one thread of {_machine()}, with the spread over the rounds of the"
        f" measurement. In the study it was {_latency(trial)}{', of one example of each task' if part else ''}.",
        "",
        *_without_cache(settings, results),
        *_training_pairs(task),
        *_quantization(trial),
        *_sparsity(trial),
        "## Use",
        "",
        "```sh",
        *(f"python inference.py {each}" for each in USES[settings["kind"]]),
        "```",
        "",
        "```python",
        "from inference import load",
        "",
        'model = load(".")  # needs numpy and onnxruntime, or numpy and torch',
        f"print(model.{'generate' if language_model else 'predict'}([{EXAMPLES[settings['kind']]}]))",
        "```",
        "",
        "With the package `paretoformer`, `search.export.rebuild.load_network` builds the network from"
        f" `architecture.yaml` and `model.safetensors`{' in the folder above' if part else ''}. None of these loads"
        " code from a file.",
        "",
        "## Origin",
        "",
        f"`{origin.command}`",
        "",
        f"Versions: Python {platform.python_version()}, {', '.join(_versions())}.",
    ]
    return "\n".join(lines) + "\n"


USES = {
    "text": ["texts.txt", "texts.csv --column text --json"],
    "image": ["image.png", "folder_of_images --json"],
    "audio": ["recording.wav", "folder_of_recordings --json"],
    "tokens": ["arrays.npy", "arrays.npy --json"],
}
EXAMPLES = {"text": '"a text"', "image": '"image.png"', "audio": '"recording.wav"', "tokens": "array"}


def _given(task: Mapping[str, Any]) -> str:
    """The settings of a task that are not null."""
    return json.dumps({name: value for name, value in task.items() if value is not None})


def _article(settings: Mapping[str, Any]) -> str:
    names = {"text": "texts", "image": "images", "audio": "recordings", "tokens": "sequences"}
    of = names[settings["kind"]]
    if settings["answer_length"] is not None:
        return f"A translator of {of}"
    if settings.get("alphabet"):
        return f"A speech recogniser of {of}"
    return f"A {'language model' if settings['language_model'] else 'classifier'} of {of}"


def _describe_input(settings: Mapping[str, Any]) -> str:
    length, kind = settings["length"], settings["kind"]
    if kind == "text":
        most = f"of which the last {length} count" if settings["language_model"] else f"truncated to {length} tokens"
        return f"texts as {settings['tokens']}, {most}"
    if kind == "image":
        return f"images of {settings['width']} by {settings['height']} pixels and {settings['channels']} channels"
    if kind == "audio":
        return f"recordings at {settings['rate']} Hz, as {length} frames of {settings['features']} log-mel bands"
    features, vocabulary = settings["features"], settings["vocabulary"]
    return f"{length} ids below {vocabulary}" if features is None else f"{length} frames of {features} numbers"


def _metric_rows(trial: Record) -> list[str]:
    names = dict.fromkeys([*trial.validation_metrics, *trial.test_metrics])
    rows = [[name, trial.validation_metrics.get(name), trial.test_metrics.get(name)] for name in names]
    return ["| {} | {} | {} |".format(name, *(_number(value) for value in values)) for name, *values in rows]


def _repeated(origin: Origin) -> str:
    """What the trainings with other seeds gave."""
    metric, found = origin.objectives.metric, origin.repetitions
    if len(found) < 2:
        return "It is that of a single training; `search.front --confirm` trains it again."
    splits = {"validation": [each.validation for each in found], "test": [each.test for each in found]}
    samples = {split: Sample(tuple(each[metric] for each in values)) for split, values in splits.items()}
    means = " and ".join(f"{each} on {split}" for split, each in samples.items())
    return f"{len(found)} further trainings with other seeds gave {metric} {means} (mean and 95 % interval)."


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _program_row(result: Result, metric: str) -> str:
    if result.problem:
        return f"| {result.runtime} | none | | | | {result.problem.replace('|', ' ')} |"
    assert result.test is not None
    assert result.latency is not None
    error = f"{result.error:.1e}" if result.file else ""
    latency = f"{result.latency.ms:.3f} ms ±{result.latency.spread:.1%}"
    free = ", ".join(result.free) if result.file else "batch, length"
    return f"| {result.runtime} | {result.file} | {free} | {error} | {result.test[metric]:.4f} | {latency} |"


def _without_cache(settings: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    if all(result.problem for result in results[1:]):
        return []
    if settings["answer_length"] is not None:
        return ["The programs have no cache: for each token they read the source and the translation again.", ""]
    if files := [f"`{STEPS[runtime][0]}`" for runtime in settings["steps"]]:
        return [f"{' and '.join(files)} read generated tokens one by one; their state holds the tokens before.", ""]
    text = "The programs have no cache of earlier tokens: for each new one they read the whole text again."
    return [text, ""] if settings["language_model"] else []


def _training_pairs(task: Task) -> list[str]:
    if not isinstance(task, Translation) or not task.neighbours:
        return []
    text = (
        f"**Training texts:** `{NEIGHBOURS}` contains the {len(task.pairs['train'])} training pairs as ids of tokens,"
        " as the model also reads translations of similar ones. Whoever has this folder can read them."
    )
    return [text, ""]


def _quantization(trial: Record) -> list[str]:
    quantization = quantization_of(dict(trial.architecture))
    if quantization == BY_PROGRAM:
        text = "The metrics above are those of `model.int8.onnx`, in 8-bit integers, which `inference.py` runs."
    elif quantization in LAYERS:
        kind = "8-bit integers" if quantization == "int8" else "bfloat16"
        text = f"The network (eager) computes linear layers in {kind}, `model.onnx` and `model.pt2` do not."
    else:
        return []
    return [text, ""]


def _sparsity(trial: Record) -> list[str]:
    sparsity = trial.architecture["model"].get("sparsity", DENSE)
    if sparsity == DENSE:
        return []
    weights = read_tensors(Path(trial.weights))[0].values()
    zeros, total = sum(int((each == 0).sum()) for each in weights), sum(each.numel() for each in weights)
    return [
        f"`model.sparsity={sparsity}`: {zeros} of the {total} weights are 0 ({zeros / total:.1%}). They are stored and"
        " multiplied like others, so the latencies above do not follow.",
        "",
    ]


def _latency(trial: Record) -> str:
    if trial.timing is None:
        return "not measured"
    return f"{trial.timing.ms:.3f} ms ±{trial.timing.spread:.1%} on {trial.timing.host}"


def _machine() -> str:
    return f"{platform.node()} ({platform.machine()}, {platform.system()})"


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
