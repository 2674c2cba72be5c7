import os
import shutil
import sys
import time

import pytest

# Two workers of a test must not fight over the cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Their tests take the longest, and would otherwise be waited for at the end.
FIRST = ("test_chaos.py", "test_recipes.py", "test_tutorial.py", "test_export_formats.py", "test_load.py")


def is_named(config):
    """Whether files or tests are named on the command line."""
    return any("::" in name or name.endswith(".py") for name in config.args)


def pytest_collection_modifyitems(config, items):
    """Begin with the tests that take the longest; those with servers run if they are named or asked for by -m."""
    items.sort(key=lambda item: item.path.name not in FIRST)
    if is_named(config) or config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("server")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("server")]


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers(config):
    """One process per CPU, and one more with slow tests, some of which wait for servers and other processes.

    Run in this process when files or tests are named on the command line: a second process starts slower.
    """
    count = yield
    if is_named(config):
        return 0
    return count + ("not slow" not in config.option.markexpr)


@pytest.fixture(autouse=True)
def close_storages():
    """Close the storages that a test opened."""
    yield
    if "tiny_task" in sys.modules:
        sys.modules["tiny_task"].close_opened()


@pytest.fixture(autouse=True)
def tracking_uri():
    """Restore the environment variable that MLflow changes when it is told a database."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    yield
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


@pytest.fixture(autouse=True, scope="session")
def mlflow_tables(tmp_path_factory):
    """Databases of MLflow are copies of one, as its migrations take more than a second each."""
    client = sys.modules.get("search.tracking.client")
    if client is None:  # no test that was collected has imported it
        yield
        return
    create, made = client.create_database, tmp_path_factory.mktemp("mlflow") / "made.db"

    def copied(file, fill):
        if fill.__module__ == client.__name__:
            create(made, fill)
            create(file, lambda new: shutil.copy(made, new))
        else:
            create(file, fill)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "create_database", copied)
        yield


POSTGRESQL = os.environ.get("PARETOFORMER_TEST_POSTGRESQL")
STORAGES = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(not POSTGRESQL, reason="no server given")),
]


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a database for this process alone: parallel pytest-xdist workers share the server."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        yield POSTGRESQL
        return
    import sqlalchemy

    name = f"paretoformer_{worker}"
    server = sqlalchemy.create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield sqlalchemy.make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def emptied_postgresql(postgresql):
    """The URL of the database, whose tables are dropped before the test, as other tests leave some, and after it."""
    import sqlalchemy

    def empty():
        engine = sqlalchemy.create_engine(postgresql)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
            connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
        engine.dispose()

    empty()
    yield postgresql
    empty()


@pytest.fixture(params=STORAGES)
def url(request, tmp_path):
    """The URL of an empty SQLite database, and of an empty PostgreSQL one if there is a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return request.getfixturevalue("emptied_postgresql")


@pytest.fixture
def time_zone(monkeypatch):
    """Another one than UTC, in which times are stored."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()
