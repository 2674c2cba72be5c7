"""A view of one study for MLflow's runs page: metric against cost, and the trials as a sorted table.

The format is MLflow's own and undocumented, as the page of version 3.17 writes it into a tag of the experiment. A page
that cannot read it shows its usual list.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from search.study.records import Objectives, Record
from search.tracking.summaries import accepted
from spaces.architecture import settings


def tag(
    study: str, study_id: str, objectives: Objectives, records: Sequence[Record], *, now_ms: int
) -> tuple[str, str]:
    """Key and value of the experiment's tag that holds the view of the runs tagged ``study_id``."""
    state = json.dumps(_state(study_id, objectives, _searched(records)))
    value = {
        "name": f"{study} {study_id[:6]}",
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode(),
    }
    return f"mlflow.sharedViewState.{study_id}", json.dumps(value)


def address(experiment_id: str, study_id: str) -> str:
    """The page that shows the view; it follows the server's address."""
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={study_id}"
    return f"#/experiments/{experiment_id}/runs?{query}"


def _state(study_id: str, objectives: Objectives, searched: Sequence[str]) -> dict[str, Any]:
    metric = accepted(f"final_{objectives.metric}")
    card = {"deleted": False, "isGenerated": False, "metricSectionId": "front", "runsCountToCompare": 1000}
    scatters = [
        {
            **card,
            "uuid": f"scatter-{cost}",
            "type": "SCATTER",
            "xaxis": {"key": cost, "type": "METRIC"},
            "yaxis": {"key": metric, "type": "METRIC"},
        }
        for cost in objectives.costs
    ]
    parallel = {
        **card,
        "uuid": "parallel",
        "type": "PARALLEL",
        "selectedParams": [accepted(name) for name in searched],
        "selectedMetrics": [*objectives.costs, metric],
        "showAllRuns": False,
    }
    return {
        "searchFilter": f"tags.state = 'complete' and tags.`paretoformer.study_id` = '{study_id}'",
        "orderByKey": f"metrics.`{metric}`",  # sorted by a metric, nested runs are not folded away
        "orderByAsc": objectives.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"metrics.`{name}`" for name in (metric, *objectives.costs)),
            *(f"tags.`{name}`" for name in ("mechanism", "front")),
        ],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [*scatters, parallel],
        "compareRunSections": [
            {"uuid": "front", "name": "The front (blue)", "display": True, "isReordered": True, "columns": 2}
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _searched(records: Sequence[Record]) -> list[str]:
    """The numbers that every architecture has and that differ between some of them."""
    drawn = [settings(record.architecture) for record in records if record.state == "complete"]
    return [
        name
        for name, value in (drawn[0].items() if drawn else ())
        if isinstance(value, int | float)
        and all(name in values for values in drawn)
        and any(values[name] != value for values in drawn)
    ]
