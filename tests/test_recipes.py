"""The recipes that start workers by other schedulers: short, valid, without passwords, and run as far as possible."""

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import mlflow
import optuna
import pytest
import sqlalchemy
import yaml
from conftest import POSTGRESQL
from test_readme import check_composition

from search.config import check_no_password
from search.study.records import State
from search.study.storage import load_study, open_read_only
from search.study.store import TrialStore
from spaces.dimensions import ConfigError

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "search" / "workers" / "recipes"
README = (RECIPES.parent / "README.md").read_text()
QUICK = [
    "+space=smoke",
    "task=digits",
    "tracking=none",
    "latency=flops",
    "baselines=false",
    "sampler=random",
    "pruner=none",
]


def recipe(name):
    return yaml.safe_load((RECIPES / name).read_text())


def container():
    (found,) = recipe("kubernetes.yaml")["spec"]["template"]["spec"]["containers"]
    return found


def services():
    return recipe("compose.yaml")["services"]


COMMANDS = {
    "kubernetes": container()["command"],
    "compose": shlex.split(services()["worker"]["command"]),
    "slurm": shlex.split(re.search(r"sbatch slurm.sh (.*)", (RECIPES / "slurm.sh").read_text())[1]),
    "ray": shlex.split(re.search(r"ray_actors.py \d+ ([^\"]*)\.\"", (RECIPES / "ray_actors.py").read_text())[1]),
}


@pytest.mark.parametrize("path", sorted(RECIPES.iterdir()), ids=lambda path: path.name)
def test_a_recipe_has_at_most_ten_lines_of_120_characters_and_is_in_the_readme(path):
    lines = [line for line in path.read_text().splitlines() if line and not re.match(r'#(?!!|SBATCH)|"""', line)]
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 120
    assert f"(recipes/{path.name})" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_of_a_recipe_composes_and_has_no_password(name, monkeypatch):
    monkeypatch.setenv("PARETOFORMER_STORAGE", "postgresql+psycopg://me@host/studies")
    check_no_password(COMMANDS[name])
    check_composition([word for word in COMMANDS[name] if "=" in word])


def test_no_recipe_has_a_password():
    for path in RECIPES.iterdir():
        assert not re.search(r"://[^/@\s]*:[^/@\s]*@", path.read_text())
    every = [variable for variable in container()["env"] if "value" in variable]
    assert [variable["name"] for variable in every] == ["PARETOFORMER_STORAGE"]
    for service in services().values():
        assert not [name for name in service["environment"] if re.search("PASSWORD$|SECRET|TOKEN", name)]


def test_the_job_is_valid_for_kubernetes():
    job = recipe("kubernetes.yaml")
    kubernetes_validate.validate(job, "1.31", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="comand"):
        kubernetes_validate.validate(job, "1.31", strict=True)


def test_the_services_are_valid_for_docker_compose(tmp_path):
    """By the JSON schema of the Compose Specification, which also knows a misspelt key."""
    text, wrong = (RECIPES / "compose.yaml").read_text(), tmp_path / "compose.yaml"
    wrong.write_text(text.replace("depends_on", "depend_on"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, RECIPES / "compose.yaml"], check=True)
    refused = subprocess.run([*command, wrong], capture_output=True, text=True, check=False)
    assert (refused.returncode, "depend_on" in refused.stdout) == (1, True)


def test_ports_are_reached_from_this_machine_alone():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def trials(url, name="smoke-digits"):
    return optuna.load_study(study_name=name, storage=url).trials


def states(url, name="smoke-digits"):
    """Of the trials that count."""
    with open_read_only(url) as storage:
        return [str(record.state) for record in TrialStore(load_study(storage, name)).records()]


def training(url, name="smoke-digits"):
    """The process ids of the workers that have trained an epoch; read only, as the tables may be being created."""
    try:
        with open_read_only(url) as storage:
            records = TrialStore(load_study(storage, name)).records()
    except (ConfigError, optuna.exceptions.StorageInternalError):
        return set()
    return {int(each.worker.rpartition(":")[2]) for each in records if each.state == State.RUNNING and each.curve}


def wait_until(condition, process=None, seconds=120):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it takes too long"
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.2)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm controller and a node on this machine."""
    control, node, host = free_port(), free_port(), socket.gethostname()
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": control,
        "SlurmdPort": node,
        "SlurmUser": "root",
        "AuthType": "auth/none",
        "CredType": "cred/none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerType": "sched/builtin",
        "SchedulerParameters": "sched_interval=1,batch_sched_delay=0",  # by default a minute, and 3 seconds
        "StateSaveLocation": tmp_path / "state",
        "SlurmdSpoolDir": tmp_path / "spool",
        "SlurmctldPidFile": tmp_path / "slurmctld.pid",
        "SlurmdPidFile": tmp_path / "slurmd.pid",
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs=4",
        "PartitionName": "all Nodes=ALL Default=YES State=UP",
    }
    file = tmp_path / "slurm.conf"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for folder in ("state", "spool"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("SLURM_CONF", str(file))
    commands = [[name, "-D", "-f", file] for name in ("slurmctld", "slurmd")]
    daemons = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    try:
        wait_until(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True, check=False).stdout)
        yield
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("slurmctld") or os.geteuid() != 0, reason="no Slurm, or not root")
def test_slurm_requeues_workers_that_are_stopped(slurm, tmp_path):
    """As near the time limit, one gets SIGTERM; the other is killed. Both are requeued, and the study is completed."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    given = [*QUICK, f"storage.url={url}", "storage.heartbeat_s=1", "storage.grace_s=3", "space.train.epochs=30"]
    subprocess.run(
        ["sbatch", "--array=0-1", RECIPES / "slurm.sh", *given, "n_trials=3"],
        cwd=tmp_path,
        env=environment(),
        check=True,
    )

    wait_until(lambda: len(training(url)) == 2)
    first, second = training(url)
    os.kill(first, signal.SIGTERM)
    os.kill(second, signal.SIGKILL)

    def state():
        return subprocess.run(["squeue", "--noheader", "--format=%i %t %r"], capture_output=True, text=True).stdout

    wait_until(lambda: state().count("BeginTime") == 2)  # requeued: Slurm waits two minutes, which are left out
    subprocess.run(["scontrol", "update", "jobid=1", "StartTime=now"], check=True)
    wait_until(lambda: not state().strip(), seconds=240)
    assert states(url) == ["complete"] * 3
    assert [trial.state.name for trial in trials(url)].count("FAIL") >= 2, "nobody was interrupted"
    assert "interrupted (SIGTERM)" in "".join(path.read_text() for path in tmp_path.glob("*.out"))


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_ray_actors_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    command = [sys.executable, RECIPES / "ray_actors.py", "2", *QUICK, f"storage.url={url}", "n_trials=2"]
    subprocess.run([*command, f"checkpoints={tmp_path}"], env=environment(), cwd=tmp_path, check=True, timeout=300)
    assert states(url) == ["complete"] * 2


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_ray_restarts_an_actor_that_dies(tmp_path):
    """As when its node dies, its process and the worker in it are killed; another actor goes on with the trial."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    given = [*QUICK, f"storage.url={url}", "storage.heartbeat_s=1", "storage.grace_s=3", "space.train.epochs=60"]
    command = [sys.executable, RECIPES / "ray_actors.py", "2", *given, "n_trials=3", f"checkpoints={tmp_path}"]

    def workers():
        """The process ids of all, also of those that start or have nothing to do."""
        return {number for number, line in command_lines() if b"search.run\0" in line and url.encode() in line}

    process = subprocess.Popen(command, env=environment(), cwd=tmp_path)
    try:
        wait_until(lambda: len(training(url)) == 2, process, seconds=600)
        known, killed = workers(), min(training(url))
        actor = int(Path(f"/proc/{killed}/stat").read_text().rpartition(")")[2].split()[1])
        assert b"ray::" in dict(command_lines())[actor]
        for number in (actor, killed):
            os.kill(number, signal.SIGKILL)
        wait_until(lambda: workers() - known, process, seconds=600)
        assert process.wait(600) == 0
    finally:
        process.terminate()
        process.wait()
    assert states(url) == ["complete"] * 3
    assert [trial.state.name for trial in trials(url)].count("FAIL") == 1


def command_lines():
    """The ids and command lines of all processes of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield int(path.parent.name), path.read_bytes()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL or "PGPASSWORD" not in os.environ, reason="no server with a password given")
def test_two_containers_of_kubernetes_share_a_study(emptied_postgresql, tmp_path):
    """As processes with the command and the variables of the job alone, and the address of a server here."""
    known, password = sqlalchemy.make_url(emptied_postgresql), os.environ["PGPASSWORD"]
    secret = {"name": "search", "data": {"password": password}}
    here = {
        "username": os.environ.get("PGUSER", known.username),
        "host": os.environ.get("PGHOST", known.host),
        "port": int(os.environ.get("PGPORT", known.port or 5432)),
        "database": known.database or os.environ.get("PGDATABASE", "postgres"),
    }

    def value(variable):
        if "value" in variable:
            return sqlalchemy.make_url(variable["value"]).set(**here).render_as_string(hide_password=False)
        reference = variable["valueFrom"]["secretKeyRef"]
        assert reference["name"] == secret["name"]
        return secret["data"][reference["key"]]

    inherited = {name: text for name, text in environment().items() if not name.startswith("PG")}
    given = {variable["name"]: value(variable) for variable in container()["env"]}
    python, *command = container()["command"]
    assert python == "python"
    assert [container()["workingDir"]] == [volume["mountPath"] for volume in container()["volumeMounts"]]
    quick = [word for word in QUICK if not word.startswith("+")]
    workers = [
        subprocess.Popen(
            [sys.executable, *command, *quick, "study=recipe", "n_trials=2"],
            env={**inherited, **given, "JOB_COMPLETION_INDEX": str(index)},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        for index in range(2)
    ]
    seen = set()
    while any(worker.poll() is None for worker in workers):
        seen.update(line for _, line in command_lines())
        time.sleep(0.1)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert any(b"study=recipe" in line for line in seen)
    assert not [line for line in seen if password.encode() in line]
    assert states(emptied_postgresql, "recipe") == ["complete"] * 2


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL or "PGPASSWORD" not in os.environ, reason="no server with a password given")
def test_the_services_of_compose_run(emptied_postgresql, tmp_path):
    """As processes with the addresses of this machine; the image of PostgreSQL is replaced by a server here."""
    port, password, known = free_port(), os.environ["PGPASSWORD"], sqlalchemy.make_url(emptied_postgresql)
    (tmp_path / "password").write_text(password)  # in the folder that is /shared
    user, host = os.environ.get("PGUSER", "postgres"), os.environ.get("PGHOST", "localhost")
    at = f"{user}@{host}:{os.environ.get('PGPORT', 5432)}"
    places = {
        "$$": "$",
        "0.0.0.0": "127.0.0.1",
        "mlflow:5000": f"127.0.0.1:{port}",
        "mlflow:*": "127.0.0.1:*",
        "postgres@db/postgres": f"{at}/tracking",
        "postgres@db/studies": f"{at}/{known.database or os.environ.get('PGDATABASE', user)}",
    }

    def here(text):
        for there, place in places.items():
            text = text.replace(there, place)
        return text

    def start(service, more):
        given = environment(**{name: here(value) for name, value in service["environment"].items()})
        del given["PGPASSWORD"]
        command = [*map(here, service["entrypoint"]), *shlex.split(here(service["command"])), *more]
        with (tmp_path / f"{more[0]}.log").open("w") as output:
            return subprocess.Popen(command, env=given, cwd=tmp_path, stdout=output, stderr=output)

    subprocess.run(["createdb", "tracking"], check=True)
    server = start(services()["mlflow"], ["--port", str(port), "--workers", "1"])
    try:
        wait_until(lambda: listens(port), server)
        quick = [word for word in QUICK if word != "tracking=none" and not word.startswith("+")]
        worker = start(services()["worker"], ["study=recipe", *quick, "n_trials=1"])
        seen = set()
        while worker.poll() is None:
            seen.update(line for _, line in command_lines())
            time.sleep(0.1)
        assert worker.returncode == 0, (tmp_path / "study=recipe.log").read_text()
        assert any(b"study=recipe" in line for line in seen)
        assert not [line for line in seen if password.encode() in line]
        assert not [path for path in tmp_path.glob("*.log") if password in path.read_text()]
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        runs = client.search_runs([client.get_experiment_by_name("paretoformer").experiment_id])
        assert sorted(run.data.tags.get("state", "") for run in runs)[-1] == "complete"
        assert {artifact.path for run in runs for artifact in client.list_artifacts(run.info.run_id)} >= {"front.html"}
    finally:
        server.terminate()
        server.wait()
        subprocess.run(["dropdb", "--force", "tracking"], check=True)
