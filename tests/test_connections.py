"""Connections to PostgreSQL that nobody has closed: idle ones that were dropped, and dead ones."""

import os
import socket
import sys
from contextlib import nullcontext

import pytest
import sqlalchemy
from conftest import POSTGRESQL
from test_retrying import proxied  # noqa: F401 - a fixture
from tiny_task import Reports, run_trials, tiny_search, tiny_study

from search.study import retrying
from search.study.database import LIBPQ
from spaces.dimensions import ConfigError

pytestmark = pytest.mark.skipif(not POSTGRESQL, reason="no server given")


@pytest.fixture
def study(emptied_postgresql, monkeypatch):
    study = tiny_study(emptied_postgresql)
    monkeypatch.setattr(retrying.time, "sleep", lambda _: pytest.fail("a transaction is retried"))
    return study


def test_an_idle_connection_that_was_closed_is_replaced_before_it_is_used(study, emptied_postgresql):
    """As after an hour without a query, by the server or what is between; no transaction fails."""
    study.set_user_attr("a", 1)
    engine = sqlalchemy.create_engine(emptied_postgresql)
    close = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        closed = connection.execute(sqlalchemy.text(close)).scalars().all()
    engine.dispose()
    study.set_user_attr("a", 2)
    assert closed == [True]
    assert study.user_attrs["a"] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
@pytest.mark.parametrize("acknowledged", [False, True])
def test_connections_that_a_firewall_has_forgotten_are_replaced_before_they_are_used(
    proxied,  # noqa: F811
    acknowledged,
    monkeypatch,
):
    """Their packets are dropped and nobody is told; what acknowledges them may be a proxy that has lost its server."""
    if not acknowledged and sys.platform != "linux":
        pytest.skip("no filter of a socket")
    proxy, study = proxied
    monkeypatch.setattr("search.study.postgresql.ANSWER_S", 1.0 if acknowledged else 3600.0)
    monkeypatch.setattr(retrying.time, "sleep", lambda _: pytest.fail("a transaction is retried"))

    class Forgets(Reports):
        count = 0

        def progress(self, trial):
            if trial.epochs == 2:
                self.count += 1
                proxy.forget(acknowledged=acknowledged)

    reporter = Forgets()
    trials = run_trials(study, tiny_search(), 2, reporter=reporter)
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert (reporter.count, len(proxy.forgotten) >= 2) == (2, True)


def test_the_password_may_be_in_a_file(emptied_postgresql, tmp_path, monkeypatch):
    """In that of libpq, by default ~/.pgpass."""
    given = sqlalchemy.make_url(emptied_postgresql)
    password = given.password or os.environ.get("PGPASSWORD")
    if not password:
        pytest.skip("the server needs no password")
    url = given.set(password=None).render_as_string(hide_password=False)
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    for written, refused in ((password, False), ("wrong", True)):
        file.write_text(f"*:*:*:*:{written}\n")
        file.chmod(0o600)
        monkeypatch.delenv("PGPASSWORD", raising=False)
        with pytest.raises(ConfigError) if refused else nullcontext():
            tiny_study(url, name="by file")


def test_a_connection_that_the_network_drops_silently_is_noticed_within_a_minute(study):
    """By the kernel, which asks an idle other end and counts what is not acknowledged."""
    with (
        study._storage._backend.engine.connect() as connection,
        socket.socket(fileno=connection.connection.driver_connection.pgconn.socket) as link,
    ):
        if link.family == socket.AF_UNIX:
            pytest.skip("reached by a file")
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        idle_s, interval_s, count, lost_ms = (link.getsockopt(socket.IPPROTO_TCP, each) for each in options)
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        link.detach()
    assert idle_s + interval_s * count <= 60
    assert lost_ms == LIBPQ["tcp_user_timeout"] <= 60_000
