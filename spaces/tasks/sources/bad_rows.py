"""What of a user's data can't be used: a little is left out and told, much is refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)
SPARED = 0.1  # share that may be unusable


def warn_or_refuse(problems: Sequence[str], total: int, *, where: str, what: str) -> None:
    """Warn how many of ``total`` have problems, and of the first one.

    Args:
        problems: one each, beginning with what it is about.
        total: of usable and unusable ones.
        where: they come from.
        what: they are, in the plural.

    Raises:
        ValueError: more than ``SPARED`` of them are unusable.
    """
    if not problems:
        return
    told = f"{len(problems)} of {total} {what} are unusable, such as {problems[0]}"
    if len(problems) > SPARED * total:
        raise ValueError(f"{where}: {told}")
    log.warning("%s: skipped: %s", where, told)
