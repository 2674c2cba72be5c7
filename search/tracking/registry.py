"""Registers an exported folder as a model in MLflow."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version
from pathlib import Path

from search.config import hide_passwords
from search.tracking.client import PARENT, STUDY, connect, study_runs
from search.tracking.mlflow import resolve_uri
from spaces.dimensions import ConfigError

PACKAGES = ("mlflow", "numpy", "onnxruntime", "pillow", "scipy", "soundfile", "tokenizers")  # of inference.py


def register(folder: Path, code: Path, *, name: str, alias: str, study: str, trial: int, uri: str | None) -> str:
    """Register a new version of the model ``name``, and give it ``alias``.

    Args:
        folder: an exported folder.
        code: the file that MLflow runs to load the model.
        name: of the registered model.
        alias: of its new version.
        study: that the model is of.
        trial: its number.
        uri: of the server or database; None for that of MLFLOW_TRACKING_URI or else ``mlflow.db``.

    Returns:
        The address of the model.

    Raises:
        ConfigError: MLflow failed.
    """
    uri, artifacts = resolve_uri(uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        client = connect(uri)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between MLflow and the libraries it uses
            import mlflow

            mlflow.set_tracking_uri(uri)
            found = client.get_experiment_by_name("paretoformer")
            experiment = (
                found.experiment_id if found else client.create_experiment("paretoformer", artifact_location=artifacts)
            )
            tags = {STUDY: study, "exported_trial": str(trial)}
            parents = (run for run in study_runs(client, experiment) if run.data.tags[STUDY] == study)
            if (parent := next(parents, None)) is not None:  # the model is then listed below its study
                tags[PARENT] = parent.info.run_id
            with mlflow.start_run(experiment_id=experiment, run_name=f"{study}, export of trial {trial}", tags=tags):
                made = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(code),
                    artifacts={"folder": str(folder)},
                    pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
                    registered_model_name=name,
                )
            client.set_registered_model_alias(name, alias, str(made.registered_model_version))
    except Exception as error:  # MLflow raises exceptions of its own, of its database and of HTTP
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"MLflow at {hide_passwords(uri)} failed: {hide_passwords(reason)}") from error
    return f"models:/{name}@{alias}"
