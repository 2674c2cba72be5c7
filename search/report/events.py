"""A line of output for programs: a JSON object with the name of an event and its values. Only light imports."""

from __future__ import annotations

import json
import math
from typing import Any

from search.config import hide_passwords

START = '{"event": '


def event(name: str, **values: Any) -> str:
    """A line; numbers that JSON does not have, such as NaN, are null."""
    return hide_passwords(json.dumps({"event": name, **_plain(values)}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
