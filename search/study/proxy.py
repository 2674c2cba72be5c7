"""Optuna's storage behind a gRPC server, for studies with hundreds of workers; see :mod:`search.proxy`.

Workers then need no password and no connection to the database. What Optuna's client lacks is added: heartbeats, a time
limit for each call, and repetition while the server is away.
"""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any
from urllib.parse import urlsplit

import grpc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.auto_generated.api_pb2_grpc import StorageServiceStub
from optuna.storages._grpc.client import GrpcClientCache
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import TrialState

from search.study.retrying import COMMON_CALLS, Retrying, retry_methods
from spaces.dimensions import ConfigError

PORT = 13000
SCHEME = "grpc://"
START_S = 10.0  # in which the server must answer first
CALL_S = 60.0  # after which a call has failed: the server, or its database, hangs
CHANNEL = {  # ms; a connection that the network has dropped would otherwise be used for a quarter of an hour
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,  # also for what the kernel has sent and nobody acknowledges
    "grpc.max_receive_message_length": -1,  # as Optuna's own
}
HEARTBEAT = "heartbeat"  # user attribute of a running trial: the number of its heartbeats
TRANSIENT = {  # codes of calls that may succeed later; the database of the server fails with UNKNOWN
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}


class _WithTimeLimit:
    """A gRPC stub whose calls fail after ``CALL_S`` seconds."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._stub, name), timeout=CALL_S)


class ProxyStorage(Retrying, GrpcStorageProxy, BaseHeartbeat):
    """A client of a gRPC server in front of the database.

    A heartbeat increases a number in the trial's user attributes. A trial is stale if this process has seen the same
    number for ``grace_s`` seconds of its own clock, so clocks of workers need not agree.

    Args:
        url: ``grpc://host:port``.
        heartbeat_s: seconds between heartbeats.
        grace_s: seconds without a heartbeat after which a trial is stale.
        wait_s: see :class:`Retrying`.

    Raises:
        ConfigError: the URL is invalid, or the server does not answer.
    """

    def __init__(self, url: str, *, heartbeat_s: int, grace_s: float, wait_s: float) -> None:
        self.wait_s, self.grace_s, self._heartbeat_s = wait_s, grace_s, heartbeat_s
        self._beats = dict[int, int]()  # of the trials that this process runs, by id
        self._seen = dict[int, tuple[Any, float]]()  # of running trials, by id: their heartbeat, since when
        host, port = address(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(host=host, port=port)
        try:
            self.wait_server_ready(START_S)
        except ConnectionError:
            self.close()
            raise ConfigError(
                f"url: no server answers at {url}; start one there: python -m search.proxy --port {port}"
            ) from None

    def _setup(self) -> None:
        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=list(CHANNEL.items()))
        stub: Any = StorageServiceStub
        limited: Any = _WithTimeLimit(stub(self._channel))
        self._stub, self._cache = limited, GrpcClientCache(limited)

    def is_transient(self, error: Exception) -> bool:
        """See :class:`Retrying`."""
        return isinstance(error, grpc.RpcError) and error.code() in TRANSIENT

    def record_heartbeat(self, trial_id: int) -> None:
        """See Optuna; a failed one is left out."""
        self._beats[trial_id] = self._beats.get(trial_id, 0) + 1
        try:
            GrpcStorageProxy.set_trial_user_attr(self, trial_id, HEARTBEAT, self._beats[trial_id])
        except Exception:
            # The trial has ended, or the server is away.
            return

    def get_heartbeat_interval(self) -> int:
        """In seconds."""
        return self._heartbeat_s

    def get_heartbeat_stale_trial_callback(self) -> None:
        """None: trials are requeued by :func:`search.study.requeue.fail_stale`."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=[TrialState.RUNNING])
        now, seen, self._seen = time.monotonic(), self._seen, {}
        for trial in running:
            beat = trial.user_attrs.get(HEARTBEAT)
            last, since = seen.get(trial._trial_id, (None, now))
            self._seen[trial._trial_id] = (beat, since if beat == last else now)
        if self.is_recovering():
            return []
        return self.without_running(
            trial_id for trial_id, (_, since) in self._seen.items() if now - since > self.grace_s
        )


CALLS = (*COMMON_CALLS, "create_new_trial", "set_trial_param", "get_all_trials")  # of the server
retry_methods(ProxyStorage, GrpcStorageProxy, CALLS)


def address(url: str) -> tuple[str, int]:
    """The host and the port of ``grpc://host:port``.

    Raises:
        ConfigError: the URL is another one.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host, port = None, PORT
    if not host or url != f"{SCHEME}{parts.netloc}" or "@" in parts.netloc:
        raise ConfigError(f"url: {url!r} is no address of a gRPC server; write {SCHEME}HOST:PORT")
    return host, port
