"""Language modelling of real text, byte by byte: bits per byte, with latency measured while text is generated."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.tasks.sources.text_windows import SUFFIXES
from spaces.tasks.text import Text


class Writing(Text):
    """Bits per byte; see :class:`~spaces.tasks.text.Text` with ``predict=next_byte`` for the settings."""

    def __init__(
        self,
        *,
        folder: str | None = None,
        length: int = 192,
        generate: int = 96,
        suffixes: Sequence[str] = SUFFIXES,
        train: int = 640,
        validation: int = 80,
        test: int = 160,
    ) -> None:
        super().__init__(
            folder=folder,
            predict="next_byte",
            length=length,
            generate=generate,
            suffixes=suffixes,
            train=train,
            validation=validation,
            test=test,
        )
