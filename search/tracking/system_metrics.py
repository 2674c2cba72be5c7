"""The load of the machine as metrics of a run, where the user has turned on MLflow's system metrics."""

from __future__ import annotations

import logging
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)


def monitor(run_id: str, uri: str) -> SystemMetricsMonitor | None:
    """Begin to log CPU, memory, disk, network and GPU every ten seconds; None where it is off, or psutil is missing.

    It is on by ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true``. The metrics have the name of the host in their names, as
    workers of several hosts share the run.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():  # type: ignore[no-untyped-call]
        return None
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it reports its start and its end
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        settings = {"resume_logging": True, "node_id": platform.node(), "tracking_uri": uri}
        started = SystemMetricsMonitor(run_id, **settings)  # type: ignore[no-untyped-call]
    except ImportError as error:
        logger.warning("System metrics are not logged: %s. They need: pip install psutil", error)
        return None
    started.start()  # type: ignore[no-untyped-call]
    return started
