"""A trial that runs out of memory: by a limit, by the kernel, and by a signal as the kernel sends it."""

import multiprocessing
import os
import resource
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from test_same_again import make_stale
from tiny_task import TREE, Reports, close_opened, run_trials, tiny_search, tiny_study

from search.study.store import TrialStore
from spaces.models.encoder import Encoder


class Hungry(Encoder):
    """Kills its process in the first training step if it is wide: a stand-in for one that exceeds the memory."""

    def forward(self, batch):
        weight = next(self.parameters())
        if self.training and weight.shape[-1] == 8 and not weight.is_meta:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(batch)


class Greedy(Encoder):
    """Takes 256 GB in the first training step if it is wide."""

    def forward(self, batch):
        weight = next(self.parameters())
        if self.training and weight.shape[-1] == 8 and not weight.is_meta:
            self.taken = [torch.ones(2**26) for _ in range(1000)]
        return super().forward(batch)


MODEL = {**TREE["model"], "_target_": "test_killed.Hungry"}
SPACE = {"attention": {"softmax": TREE["attention"]["softmax"]}, "model": MODEL, "train": {**TREE["train"], "lr": 0.01}}


def work(url):
    """Run a worker in a process of its own."""
    run_trials(tiny_study(url), tiny_search(SPACE), 2, reporter=Reports())
    close_opened()


def work_in(group, url):
    """Run a worker in a process of its own whose memory the kernel limits."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    space = {**SPACE, "model": {**MODEL, "_target_": "test_killed.Greedy"}}
    run_trials(tiny_study(url), tiny_search(space), 2, reporter=Reports())
    close_opened()


@pytest.fixture
def limited_group():
    """A control group of this process's own, version 1 or 2, of a GB."""
    names = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    root, name = Path("/sys/fs/cgroup"), "memory.limit_in_bytes" if "memory" in names else "memory.max"
    own = root / "memory" / names["memory"][1:] if "memory" in names else root / names[""][1:]
    group = own / f"paretoformer-tests-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(2**30))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group: {error}")
    yield group
    group.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="no control groups")
def test_the_kernel_kills_workers_that_exceed_the_memory_and_the_fourth_ends_the_study(tmp_path, limited_group):
    check_killed_three_times(f"sqlite:///{tmp_path / 'studies.db'}", partial(work_in, limited_group))


@pytest.mark.slow
def test_a_trial_that_kills_three_workers_is_pruned_and_the_fourth_ends_the_study(tmp_path):
    check_killed_three_times(f"sqlite:///{tmp_path / 'studies.db'}", work)


def check_killed_three_times(url, work):
    study, codes = tiny_study(url), []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    while not codes or codes[-1]:
        assert len(codes) <= 3, "it is tried for ever"
        process = context.Process(target=work, args=(url,))
        process.start()
        process.join()
        codes.append(process.exitcode)
        make_stale(study)
    assert codes == [-signal.SIGKILL] * 3 + [0]
    (pruned,) = (record for record in TrialStore(study).records() if record.architecture["model"]["width"] == 8)
    assert (str(pruned.state), pruned.epochs) == ("pruned", 0)
    assert pruned.reason == "3 workers died while they ran it, as when memory runs out"
    assert sorted(str(record.state) for record in TrialStore(study).records()) == ["complete", "pruned"]


def work_with_little_memory(url):
    """Run a worker whose process may take two further GB."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * 2**30,) * 2)
    space = {**SPACE, "model": {**MODEL, "_target_": "test_killed.Greedy"}}
    run_trials(tiny_study(url), tiny_search(space), 2, reporter=Reports())
    close_opened()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of the address space")
def test_a_trial_that_exceeds_the_memory_limit_is_pruned_and_the_worker_goes_on(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study, context = tiny_study(url), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work_with_little_memory, args=(url,))
    process.start()
    process.join()
    assert process.exitcode == 0
    records = {record.architecture["model"]["width"]: record for record in TrialStore(study).records()}
    assert {width: str(record.state) for width, record in records.items()} == {4: "complete", 8: "pruned"}
    assert "out of memory: " in records[8].reason
