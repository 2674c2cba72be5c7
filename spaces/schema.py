"""Types of settings from YAML, checked against the annotations of what takes them, with messages in plain words.

The signature of a class is the schema of its settings, so there is no second description of them. pydantic checks in
its strict mode: ``true`` and ``"3"`` are no numbers, and numbers must be finite.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import reprlib
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    list: "a list",
    dict: "a mapping",
}
_LISTS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlist = _short.maxdict = 8


def shown(value: object) -> str:
    """``value`` as messages show it: the words of YAML, else Python's ``repr``, shortened."""
    return json.dumps(value) if value is None or isinstance(value, bool) else _short.repr(value)


def wrong_type(value: object, annotation: Any) -> str:
    """What ``value`` must be instead, in words; empty if it is of the annotated type."""
    adapter = _adapter(annotation)
    try:
        if adapter is not None:
            adapter.validate_python(value)
    except ValidationError:
        return f"it must be {expected(annotation)}"
    return ""


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """None if pydantic cannot check the annotation."""
    if annotation is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(annotation, config=STRICT)
    except (PydanticUserError, PydanticSchemaGenerationError):
        return None


def expected(annotation: Any) -> str:
    """The values of an annotated type, in words such as "a whole number or null"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin in (Union, UnionType):
        return listed([expected(each) for each in arguments if get_origin(each) is not Callable])
    if origin is Literal:
        return listed([str(value) for value in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if (isinstance(origin, type) and issubclass(origin, (list, tuple, set))) or origin in _LISTS:
        return "a list" if not arguments else f"a list, each item {expected(arguments[0])}"
    return f"an object of {getattr(annotation, '__name__', annotation)}, given by its _target_"


def listed(words: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes in an annotation whose objects YAML can only give by ``_target_``."""
    for argument in get_args(annotation):
        yield from classes_in(argument)
    known = annotation in (inspect.Parameter.empty, *_WORDS)
    if isinstance(annotation, type) and get_origin(annotation) is None and not known:
        yield annotation


def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function, with annotations evaluated where that is possible."""
    function = inspect.unwrap(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    names = getattr(function, "__globals__", None) or vars(sys.modules[target.__module__])
    return {
        name: parameter.replace(annotation=_evaluated(parameter.annotation, names))
        for name, parameter in inspect.signature(target).parameters.items()
    }


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**vars(typing), **vars(collections.abc), **names})
    except Exception:  # such as a name that is imported for type checkers only
        return inspect.Parameter.empty
