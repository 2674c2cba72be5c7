"""The schema of a composed configuration: every key of a run with its type and range, checked once.

The sections that name a class, such as ``sampler``, are checked against the signature of that class when it is
constructed, see :mod:`spaces.schema`; the section ``space`` by :class:`spaces.space.Space`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from search.config import COSTS, DURATION, OUTPUTS, Output, option_names, parse_duration
from spaces.dimensions import ConfigError
from spaces.schema import STRICT, listed, shown

MAX_SEED = 2**32 - 1  # as numpy asks
MAX_WORKERS = 256  # processes on one machine
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS = get_args(Precision)
AUTO = "auto"
SCALES = ("tiny", "small", "base")


def _distinct_costs(values: list[str]) -> list[str]:
    if len(set(values)) < len(values) or not set(values) <= set(COSTS):
        raise ValueError("not distinct costs")
    return values


def _known_costs(values: dict[str, float]) -> dict[str, float]:
    if not set(values) <= set(COSTS):
        raise ValueError("unknown costs")
    return values


def _duration(value: str) -> str:
    parse_duration(value, "")
    return value


Count = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(gt=0)]
LIMIT = "a number above 0, or null for no limit"
Duration = Annotated[str, AfterValidator(_duration)]
Seconds = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
# The name of a folder too, and text in HTML, Markdown and commands.
StudyName = Annotated[str, Field(pattern=r"^\w[\w .,+=@-]{0,99}$")]
Section = Mapping[str, Any]


Limits = create_model(
    "Limits",
    __doc__="The key ``limits``.",
    __config__=ConfigDict(**STRICT, extra="forbid"),
    **{name: (Limit | None, Field(default=None, description=LIMIT)) for name in COSTS},  # type: ignore[call-overload]
)


class RunConfig(BaseModel):
    """A composed configuration; each description says which values are accepted."""

    model_config = ConfigDict(**STRICT, extra="forbid")

    space: Section = Field(description="a search space, by +space=NAME")
    task: Section
    sampler: Section
    pruner: Section
    latency: Section
    storage: Section
    tracking: Section
    study: StudyName | None = Field(
        description="up to 100 letters, digits, spaces and . , _ + = @ -, the first a letter, a digit or _, in quotes "
        "if it looks like a number; or null"
    )
    n_trials: Literal["auto"] | Count | None = Field(
        description="a whole number from 1, auto, or null for every architecture once"
    )
    budget: Duration | Seconds | None = Field(description=f"{DURATION}, or null for no limit")
    patience: Duration | Count | None = Field(
        description="a number of trials from 1, a duration such as 5min, or null for no limit"
    )
    min_gain: Annotated[float, Field(gt=0)] | None = Field(
        description="a gain of the hypervolume per hour above 0, such as 0.05, or null for no limit"
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_WORKERS)] = Field(
        description=f"a whole number from 1 to {MAX_WORKERS}, or auto"
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(description=f"a whole number from 0 to {MAX_SEED}")
    scale: Literal["auto", "tiny", "small", "base"] = Field(description=listed([AUTO, *SCALES]))
    costs: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct_costs)] = Field(
        description=f"a list of distinct costs such as [latency_ms]; costs are {', '.join(COSTS)}"
    )
    limits: Limits = Field(description="a mapping of costs such as {latency_ms: 2.0}")  # type: ignore[valid-type]
    prefer: Annotated[dict[str, Limit], AfterValidator(_known_costs)] = Field(
        description=f"a mapping of costs such as {{latency_ms: 2.0}}; costs are {', '.join(COSTS)}"
    )
    teacher: Text | None = Field(description="a study, or trials of its front such as mine:12 or mine:3+7; or null")
    warm_start: Text | None = Field(description="the name of a study, in quotes if it looks like a number; or null")
    baselines: bool = Field(description="true or false")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,4})?)$")] = Field(
        description="auto, cpu, mps, cuda, or one of several GPUs such as cuda:1"
    )
    hardware: Text = Field(description="a name of the machine that latencies are measured on, or auto")
    precision: Precision = Field(description=listed(list(PRECISIONS)))
    compile: bool = Field(description="true or false")
    checkpoints: Text = Field(description="the path of a folder, or an fsspec URL such as s3://bucket/folder")
    output: Output = Field(description=listed(list(OUTPUTS)))
    measuring_share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="the share of the run's time that latencies may take, from 0 to 1"
    )
    weights_mb: Annotated[float, Field(ge=0)] | None = Field(
        description="a number of megabytes from 0, or null for no limit"
    )


def validate_config(config: Mapping[str, Any]) -> None:
    """Check all keys of a composed configuration against :class:`RunConfig`.

    Raises:
        ConfigError: with a line for each key that is unknown, missing or invalid.
    """
    if keys := list(_other_keys(config, "")):
        raise ConfigError("\n".join(f"{key}: a key must be text; put it in quotes" for key in keys))
    try:
        RunConfig.model_validate(dict(config))
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(_messages(error, config)))) from None


def _other_keys(node: object, where: str) -> Iterator[str]:
    """The places of keys that are no text, such as 5 or true in YAML without quotes."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{where}.{key}".removeprefix(".")
            yield from _other_keys(value, place) if isinstance(key, str) else [place]


def _messages(error: ValidationError, config: Mapping[str, Any]) -> Iterator[str]:
    for each in error.errors(include_url=False):
        path, wanted, value = list[str](), "", config
        model: type[BaseModel] = RunConfig
        for part in map(str, each["loc"]):
            if part not in model.model_fields:
                break
            path.append(part)
            value = value.get(part, {})
            field = model.model_fields[part]
            wanted = field.description or _options(part)
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
                break
            model = field.annotation
        key = ".".join(path)
        if each["type"] == "extra_forbidden":
            where = f"{key}: " if key else ""
            yield f"{where}unknown key {str(each['loc'][-1])!r}; known: {', '.join(model.model_fields)}"
        elif each["type"] == "missing":
            yield f"{key}: missing; it must be {wanted}"
        else:
            yield f"{key}={shown(value)}: it must be {wanted}"


def _options(group: str) -> str:
    return f"a section with settings, as {group}=NAME chooses it; known: {', '.join(option_names(group))}"
