"""Addresses in MLflow's UI, and a saved view of its runs page for one study: scatter plots, and the sorted trials.

The format of a view is internal to MLflow and undocumented: version 3.17 stores it as a tag of the experiment. A UI
that cannot read it shows the default list of runs.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Sequence
from typing import Any

from search.study.records import Objectives, Record, State
from search.tracking.summaries import parameters, sanitize

MAX_AXES = 8  # of the parallel coordinates, besides the objectives: labels of more overlap at 1440 pixels
IMPORTANCE = "importance.svg"  # artifact of the parent run
LOWEST = -1_000_000_000  # below every metric


def tag(
    study: str,
    study_id: str,
    objectives: Objectives,
    records: Sequence[Record],
    dimensions: Collection[str] | None,
    *,
    now_ms: int,
) -> tuple[str, str]:
    """Key and value of the experiment's tag that stores a view of the runs with tag ``study_id``."""
    state = json.dumps(_view_state(study_id, objectives, _varying(records, dimensions)))
    value = {
        "name": f"{study} {study_id[:6]}",
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode(),
    }
    return f"mlflow.sharedViewState.{study_id}", json.dumps(value)


def run_path(experiment_id: str, run_id: str, tab: str = "") -> str:
    """The path of a run in the UI, which would otherwise show it as an evaluation of generative AI."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{tab}?workflowType=machine_learning"


def url_path(experiment_id: str, study_id: str) -> str:
    """The URL of the view, to be appended to that of the server."""
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={study_id}"
    return f"#/experiments/{experiment_id}/runs?{query}"


def links(experiment_id: str, run_id: str, study_id: str, *, importance: bool) -> dict[str, str]:
    """Links in the note of the parent run, by their text; one to the ``importance`` of the dimensions, if known."""
    files = {"plot of the front": "front.html", "table": "front.json"}
    files |= {"importance of the dimensions": IMPORTANCE} if importance else {}
    found = {text: run_path(experiment_id, run_id, f"/artifacts/{file}") for text, file in files.items()}
    return found | {"all trials as charts": url_path(experiment_id, study_id)}


def _view_state(study_id: str, objectives: Objectives, settings_shown: Sequence[str]) -> dict[str, Any]:
    metric = sanitize(f"final_{objectives.metric}")
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
        "selectedParams": [sanitize(name) for name in settings_shown],
        "selectedMetrics": [*objectives.costs, metric],
        "showAllRuns": False,
    }
    return {
        # Complete trials and baselines are the runs with a final metric; a filter has no "or".
        "searchFilter": f"metrics.`{metric}` > {LOWEST} and tags.`paretoformer.study_id` = '{study_id}'",
        "orderByKey": f"metrics.`{metric}`",  # nested runs are not collapsed when sorted by a metric
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
            {
                "uuid": "front",
                "name": "The front (blue), baselines (black)",
                "display": True,
                "isReordered": True,
                "columns": 1,  # in half the width the labels of the parallel coordinates overlap
            }
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _varying(records: Sequence[Record], dimensions: Collection[str] | None) -> list[str]:
    """The mechanism and those parameters that all complete trials have and that differ; at most ``MAX_AXES``."""
    complete = [parameters(record.architecture, dimensions) for record in records if record.state == State.COMPLETE]
    return [
        name
        for name in (complete[0] if complete else ())
        if all(name in values for values in complete) and len({str(values[name]) for values in complete}) > 1
    ][:MAX_AXES]
