"""What MLflow shows of a study beside its runs: the data sets of its task, and where to click on the first page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from search.config import hide_passwords
from search.report.answers import Description
from search.report.rows import markdown_text

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

MAX_DIGEST = 36  # characters, by MLflow's schema


def inputs(description: Description) -> list[DatasetInput]:
    """The splits of the task as inputs of a run: the digest is the fingerprint of the data."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = str(description.task["_target_"]).rpartition(".")[2]
    source = hide_passwords(json.dumps(dict(description.task), default=str))
    return [
        DatasetInput(
            Dataset(
                f"{name} {split}",  # MLflow keeps one data set of a name and digest
                description.data["fingerprint"][:MAX_DIGEST],
                source_type="paretoformer.task",
                source=source,
                profile=json.dumps({"split": split, "num_rows": count}),
            ),
            [InputTag("mlflow.data.context", split)],
        )
        for split, count in description.data["examples"].items()
    ]


def experiment_note(studies: Mapping[str, str]) -> str:
    """The description of the experiment, which MLflow's first page shows, with links to ``studies``, the latest first.

    Without it a reader meets MLflow's page for traces, which is empty.
    """
    links = " · ".join(f"[{markdown_text(name)}]({address})" for name, address in studies.items())
    return f"Click Model training first. Studies: {links}. The description of each tells what was searched and found."
