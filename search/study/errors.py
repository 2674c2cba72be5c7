"""Errors of databases: whether they may pass, and what to tell of them."""

from __future__ import annotations

from optuna.exceptions import StorageInternalError
from sqlalchemy import exc

PERMANENT = (exc.DataError, exc.IntegrityError, exc.NotSupportedError, exc.ProgrammingError)


def is_transient(error: BaseException) -> bool:
    """Whether an error of Optuna's storage or of SQLAlchemy may pass: it is not about the data or the statement."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return isinstance(cause, exc.SQLAlchemyError) and not isinstance(cause, PERMANENT)


def first_line(error: BaseException) -> str:
    """The first line of the database's own message, or of that of a gRPC server."""
    if isinstance(error, StorageInternalError) and error.__cause__:
        error = error.__cause__  # Optuna's own message only guesses the cause
    details = error.details() if hasattr(error, "details") else None
    text = str(details or getattr(error, "orig", None) or error)
    return text.splitlines()[0] if text else type(error).__name__
