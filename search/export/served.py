"""An exported folder as an MLflow model, from code: MLflow runs this file where the model is loaded.

It answers raw inputs: texts, or the content of image and audio files in base64; as a list, or as the first column of a
table.
"""

from __future__ import annotations

import base64
import importlib
import sys
from pathlib import Path
from typing import Any

import mlflow


class ExportedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined, unused-ignore]
    """The model of ``inference.py`` in the artifact ``folder``."""

    def load_context(self, context: Any) -> None:
        """Load the model."""
        folder = context.artifacts["folder"]
        sys.path.insert(0, folder)
        try:
            self.model = importlib.import_module("inference").load(folder)
        finally:
            sys.path.remove(folder)
            for module in Path(folder).glob("*.py"):  # another model may have other versions
                sys.modules.pop(module.stem, None)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """An answer for each input, see ``inference.py``; without hints of types, from which MLflow infers a schema."""
        if hasattr(model_input, "columns"):
            model_input = model_input.iloc[:, 0]
        examples = list(model_input)
        if self.model.settings["kind"] in ("image", "audio"):
            examples = [base64.b64decode(each) for each in examples]
        answers: list[dict[str, Any]] = self.model.predict(examples)
        return answers


mlflow.models.set_model(ExportedModel())
