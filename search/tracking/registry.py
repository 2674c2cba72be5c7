"""Registers an exported folder as a model in MLflow."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from search.config import hide_passwords
from search.tracking.client import MODELS, PARENT, STUDY, connect, search_runs, study_runs
from search.tracking.mlflow import resolve_uri
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

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
            parents = (run for run in study_runs(client, experiment) if run.data.tags[STUDY] == study)
            parent = next(parents, None)
            with _run(client, experiment, parent, study=study, trial=trial):
                made = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(code),
                    artifacts={"folder": str(folder)},
                    pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
                    registered_model_name=name,
                )
            if parent is not None:
                known = json.loads(parent.data.tags.get(MODELS, "{}"))
                number = made.registered_model_version
                link = {f"{name} v{number}, trial {trial}": _address(name, number)}
                client.set_tag(parent.info.run_id, MODELS, json.dumps(known | link))
            client.set_registered_model_alias(name, alias, str(made.registered_model_version))
    except Exception as error:  # MLflow raises exceptions of its own, of its database and of HTTP
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"MLflow at {hide_passwords(uri)} failed: {hide_passwords(reason)}") from error
    return f"models:/{name}@{alias}"


def _address(name: str, version: int) -> str:
    """Of a version of a registered model in the UI, relative to that of the server."""
    return f"#/models/{quote(name, safe='')}/versions/{version}"


@contextmanager
def _run(client: MlflowClient, experiment: str, parent: Run | None, *, study: str, trial: int) -> Iterator[None]:
    """The run of the trial as the active one, which keeps its state and duration; a new one if there is none."""
    import mlflow

    of_trial = f"tags.`{PARENT}` = '{parent.info.run_id}' and tags.trial = '{trial}'" if parent else ""
    known = search_runs(client, experiment, of_trial) if parent else []
    if known:
        run_id, before = known[0].info.run_id, known[0].info
        with mlflow.start_run(run_id=run_id):
            yield
        client.set_terminated(run_id, before.status, before.end_time)
        return
    tags = {STUDY: study, "exported_trial": str(trial)} | ({PARENT: parent.info.run_id} if parent else {})
    with mlflow.start_run(experiment_id=experiment, run_name=f"{study}, export of trial {trial}", tags=tags):
        yield
