"""Runs an exported model on raw texts, images, recordings or arrays.

    model = load("FOLDER")
    model.predict(["a text", "another one"])    # [{"label": ..., "probability": ..., "probabilities": {...}}, ...]

That of a language model gives each text's continuation and bits per byte, see also :meth:`Model.generate`; that of a
translator its translation, and of a speech recogniser the transcript of a recording.

Copies of this file and of the modules that it needs are in every exported folder, where ``python inference.py FILE``
predicts too. They need numpy and onnxruntime, or numpy and torch; what ``encoders.py`` needs besides, it says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __package__:
    from search.programs.decoding import greedy, text_decoder, transcript
    from search.programs.encoders import ENCODERS, Array, read_examples, token_bytes
    from search.programs.sessions import RUNTIMES, STEPS, Step
else:  # in an exported folder
    from decoding import greedy, text_decoder, transcript  # type: ignore[import-not-found,no-redef,unused-ignore]
    from encoders import (  # type: ignore[import-not-found,no-redef,unused-ignore]
        ENCODERS,
        Array,
        read_examples,
        token_bytes,
    )
    from sessions import RUNTIMES, STEPS, Step  # type: ignore[import-not-found,no-redef,unused-ignore]

CONTINUATION = 100  # bytes


class Model:
    """A program with its preprocessing and its class names; see :func:`load`."""

    def __init__(
        self,
        run: Callable[[dict[str, Array]], Array],
        settings: dict[str, Any],
        folder: Path,
        step: Step | None = None,
    ) -> None:
        self.settings = settings = {"language_model": False, **settings}  # older folders do not say it
        self.class_names: list[str] = settings["class_names"]
        most = None if settings["language_model"] else settings["length"]  # what a classifier reads of a text
        self._step = step
        self._run, self._encode = run, ENCODERS[settings["kind"]](settings | {"length": most}, folder)
        self._token_bytes = token_bytes(settings, folder) if settings["language_model"] else []
        self._translates = settings.get("answer_length") is not None
        self._text_of = text_decoder(settings, folder) if self._translates else None

    def encode(self, examples: Iterable[Any]) -> list[Array]:
        """The tokens of each example: ids ``(length,)`` or frames ``(length, features)``."""
        return [np.asarray(self._encode(example)) for example in examples]

    def logits(self, examples: Iterable[Any], batch_size: int = 32) -> list[Array]:
        """The logits of each example: ``(classes,)``, or ``(length, classes)`` of an output per token."""
        tokens = self.encode(examples)
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))  # together with others of a similar length
        found: list[Array] = [np.empty(0)] * len(tokens)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for at, logits in zip(chosen, self._run(self._feed([tokens[at] for at in chosen])), strict=True):
                found[at] = logits[: len(tokens[at])] if self.settings["per_token"] else logits
        return found

    def predict(self, examples: Iterable[Any]) -> list[dict[str, Any]]:
        """The label, its probability and the probabilities of all classes; lists of them for an output per token.

        Of a language model, the most probable continuation by ``CONTINUATION`` bytes, and the bits per byte of the
        text, None where it has only one. Of a translator, the translation; of a speech recogniser, the transcript.
        """
        if self._translates:
            return [{"translation": text} for text in self.translate(examples)]
        if alphabet := self.settings.get("alphabet"):
            return [{"transcript": transcript(logits, alphabet)} for logits in self.logits(examples)]
        if not self.settings["language_model"]:
            return [self._answer(logits) for logits in self.logits(examples)]
        texts = list(examples)
        continued = zip(self.generate(texts), map(self.bits_per_byte, texts), strict=True)
        return [{"continuation": text, "bits_per_byte": bits} for text, bits in continued]

    def generate(
        self, texts: Sequence[str], count: int = CONTINUATION, *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        """Continue each text by ``count`` bytes: the most probable ones, or with a temperature above 0 random ones.

        Tokens are drawn from the softmax of the logits, divided by the temperature, each after as many before it as the
        model takes, until they have ``count`` bytes; the rest is cut off.
        """
        random, continuations = np.random.default_rng(seed), []
        for ids in self.encode(texts):
            written, logits_after = b"", self._reader()
            while len(written) < count:
                logits = logits_after(ids)
                # The largest of the logits plus Gumbel noise is a draw from their softmax.
                noise = random.gumbel(size=len(logits)) if temperature else 0.0
                ids = np.append(ids, np.argmax(logits / (temperature or 1.0) + noise))
                written += self._token_bytes[ids[-1]]
            continuations.append(written[:count].decode(errors="replace"))
        return continuations

    def _reader(self) -> Callable[[Array], Array]:
        """A function from the ids so far to the logits of the next one; each call has the ids of the last, and more."""
        length, seen = self.settings["length"], 0
        state = [np.zeros(shape, np.float32) for shape in self.settings.get("state", ())]
        logits = np.empty(0)

        def read(ids: Array) -> Array:
            nonlocal seen, state, logits
            if self._step is None or len(ids) > length:
                return self._run(self._feed([ids[-length:]]))[0][min(len(ids), length) - 1]
            while seen < len(ids):
                seen += 1
                logits, state = self._step(ids[None, :seen], state)
            return logits[0]

        return read

    def translate(self, texts: Iterable[str], batch_size: int = 32) -> list[str]:
        """The most probable translation of each text, token by token."""
        tokens, length, found = self.encode(texts), self.settings["answer_length"], list[str]()
        assert self._text_of is not None
        for start in range(0, len(tokens), batch_size):
            feed = self._feed(tokens[start : start + batch_size])
            ids = greedy(lambda ids: self._run({**feed, "decoder_input_ids": ids}), len(feed["inputs"]), length, length)  # noqa: B023
            found += map(self._text_of, ids)
        return found

    def bits_per_byte(self, text: str) -> float | None:
        """-log2 of the probability of all tokens but the first, per byte, in windows as long as the model takes."""
        (ids,), length = self.encode([text]), self.settings["length"]
        bits = 0.0
        for start in range(0, len(ids) - 1, length):
            window, following = ids[start : start + length], ids[start + 1 : start + length + 1]
            logits = self._run(self._feed([window]))[0][: len(following)].astype(np.float64)
            logits -= logits.max(-1, keepdims=True)
            nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(following)), following]
            bits += float(nats.sum() / np.log(2))
        size = sum(len(self._token_bytes[at]) for at in ids[1:])
        return bits / size if size else None

    def _feed(self, tokens: Sequence[Array]) -> dict[str, Array]:
        """The inputs of the program."""
        settings = self.settings
        longest, multiple = max(1, *map(len, tokens)), settings["multiple"]
        if longest > settings["length"]:
            raise ValueError(f"{longest} tokens; the model takes {settings['length']} at most")
        whole = max(settings["least"], -(-longest // multiple) * multiple)
        length = whole if settings["free_length"] else settings["length"]
        if not (settings["padded"] or settings["language_model"]) and any(len(each) != length for each in tokens):
            raise ValueError(f"{longest} tokens; the model takes {length}")
        features = settings["features"]
        shape = (len(tokens), length) if features is None else (len(tokens), length, features)
        inputs = np.zeros(shape, np.int64 if features is None else np.float32)
        for row, each in zip(inputs, tokens, strict=True):
            row[: len(each)] = each
        feed: dict[str, Array] = {"inputs": inputs}
        if settings["padded"]:
            feed["padding"] = np.arange(length) >= np.array([len(each) for each in tokens])[:, None]
        return feed

    def _answer(self, logits: Array) -> dict[str, Any]:
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        shares = weights / weights.sum(-1, keepdims=True)
        if shares.ndim == 1:
            best = int(shares.argmax())
            every = dict(zip(self.class_names, shares.tolist(), strict=True))
            return {"label": self.class_names[best], "probability": float(shares[best]), "probabilities": every}
        labels = [self.class_names[at] for at in shares.argmax(-1)]
        return {"label": labels, "probability": shares.max(-1).tolist()}


def load(folder: str | Path, *, runtime: str | None = None, threads: int = 1) -> Model:
    """The model in an exported folder.

    Args:
        folder: the folder.
        runtime: a name of ``RUNTIMES``; None: that of the exported member, where its metrics are those of a run-time,
            or else the first whose file is there and whose package is installed.
        threads: that the run-time uses.
    """
    folder = Path(folder)
    if parts := sorted(each.parent.name for each in folder.glob("*/preprocessing.json")):
        raise ValueError(f"{folder}: it has a folder for each of several tasks: {', '.join(parts)}; name one of them")
    settings = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    runtime = runtime or settings.get("runtime")
    free, problems = settings.get("free", {}), []
    for name, (file, open_program) in RUNTIMES.items():
        if runtime in (None, name):
            if not (folder / file).is_file():
                problems.append(f"there is no {file}")
                continue
            try:
                run = open_program(folder / file, threads)
            except ImportError:
                problems.append(f"{file} needs the package {name.split('-')[0]}, which is not installed")
                continue
            # OpenVINO reads the program of onnxruntime, also where it was not installed when that was exported.
            length = "length" in free.get(name, free.get("onnxruntime", ()))
            file, open_step = STEPS.get(name, ("", None))
            step = open_step(folder / file, threads) if open_step and (folder / file).is_file() else None
            return Model(run, {**settings, "free_length": length}, folder, step)
    raise ValueError(f"{folder}: {'; '.join(problems) or f'unknown run-time {runtime}'}")


def main(arguments: Sequence[str] | None = None, *, folder: str | None = None, prog: str | None = None) -> int:
    """Predict the examples of a file; print the label and its probability of each. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description="Predict texts, images, recordings or arrays.")
    if folder is None:
        parser.add_argument("folder", metavar="FOLDER", help="of an exported model")
    parser.add_argument("file", metavar="FILE", help="texts (a line each, or .csv), a file or folder of files, or .npy")
    parser.add_argument("--column", default="text", help="of the texts in a table; by default text")
    parser.add_argument("--runtime", choices=list(RUNTIMES), help="by default onnxruntime if it is installed")
    parser.add_argument("--json", action="store_true", help="a JSON object per example, with all probabilities")
    asked = parser.parse_args(arguments)
    try:
        model = load(folder or asked.folder, runtime=asked.runtime)
        examples = list(read_examples(Path(asked.file), model.settings["kind"], asked.column))
        answers = model.predict([example for _, example in examples])
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    for (name, _), answer in zip(examples, answers, strict=True):
        if asked.json:
            print(json.dumps({"input": name, **answer}, ensure_ascii=False))  # noqa: T201
        elif "continuation" in answer:
            print(name + answer["continuation"])  # noqa: T201
        elif "translation" in answer:
            print(answer["translation"])  # noqa: T201
        elif "transcript" in answer:
            print(f"{answer['transcript']}\t{name}")  # noqa: T201
        elif isinstance(answer["label"], list):
            print(f"{' '.join(answer['label'])}\t{name}")  # noqa: T201
        else:
            print(f"{answer['label']}\t{answer['probability']:.4f}\t{name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(folder=str(Path(__file__).parent)))
