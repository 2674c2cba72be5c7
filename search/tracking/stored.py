"""Logs a stored study to MLflow."""

from __future__ import annotations

from search.report.answers import Description
from search.report.importance import importance
from search.study.stored import StoredStudy
from search.tracking.mlflow import MlflowTracking


def log_stored(stored: StoredStudy, *, uri: str | None, experiment: str = "paretoformer") -> bool:
    """Log what MLflow lacks of a study, which is only read, and bring the parent run up to date.

    Args:
        stored: the study.
        uri: of the server or database; None for that of MLFLOW_TRACKING_URI or else ``mlflow.db``.
        experiment: of MLflow.

    Returns:
        Whether nothing is missing any more.
    """
    store, objectives = stored.store, stored.objectives
    tracking = MlflowTracking(uri=uri, experiment=experiment)
    tracking.start(
        store.study.study_name,
        identity=store.study_id(),
        objectives=objectives,
        config="",
        baselines=store.baselines(),
        description=Description.of(store, objectives, stored.dimensions),
    )
    end = store.run_end()
    return tracking.finish(store.records(), end[0] if end else "", lambda: importance(store.study, objectives))
