"""Latency on a simulated machine; no test depends on the speed of the real one."""

import inspect
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import nn

from search.costs import exclusive
from search.costs.clock import Machine
from search.costs.counted import flops
from search.costs.exclusive import WaitWhileMeasuring, highest_thread_priority, lock_path, measurement_lock
from search.costs.latency import MIN_REPEATS, FlopsLatency, MeasuredLatency
from search.costs.meter import TimeShare
from tests.tiny_task import FirstToken

fcntl = pytest.importorskip("fcntl")
TASK = FirstToken(length=8)
YAMLS = Path(__file__).parents[1] / "conf" / "latency"


class FakeMachine(Machine):
    """Time passes only in forward passes, in the reference computation and while sleeping."""

    def __init__(self, references=()):
        super().__init__()
        self.now = self.ran = 0.0
        self.sleeps = []
        self.references = iter(references)  # milliseconds

    def wall(self):
        return self.now

    def cpu(self):
        return self.ran

    def sleep(self, seconds):
        self.now += seconds
        self.sleeps.append(seconds)

    def compute(self):
        pass

    def reference(self):
        self._references.append(next(self.references, 1.0) / 1e3)
        return self._references[-1]

    def spend(self, wall_ms, cpu_ms=None):
        self.now += wall_ms / 1e3
        self.ran += (wall_ms if cpu_ms is None else cpu_ms) / 1e3


class Timed(nn.Module):
    """Forward passes take the given milliseconds in turn, then the last; a pair is wall-clock and CPU time."""

    def __init__(self, machine, *times, log=None):
        super().__init__()
        self.machine, self.times, self.calls = machine, times, 0
        self.inner = nn.Dropout()
        self.inner.eval()
        self.log = [] if log is None else log

    def forward(self, batch):
        time = self.times[min(self.calls, len(self.times) - 1)]
        self.calls += 1
        self.log.append((self, batch.inputs, self.training, torch.is_inference_mode_enabled(), torch.get_num_threads()))
        self.machine.spend(*(time if isinstance(time, tuple) else (time,)))


def meter(machine, **settings):
    return MeasuredLatency(**{"rounds": 3, "repeats": 2, "warmup": 1, "machine": machine} | settings)


def test_latency_is_the_minimum_time_of_a_forward_pass_of_the_whole_batch():
    machine = FakeMachine()
    latency = meter(machine, batch=4, length=5).measure(Timed(machine, 1.0, 9.0, 6.0, 5.0, 5.5, 7.0, 5.2), TASK)
    assert latency.ms == pytest.approx(5.0)  # neither the warm-up's 1.0 nor 5.0 / 4
    assert latency.rounds_ms == pytest.approx((6.0, 5.0, 5.2))
    assert latency.spread == pytest.approx(0.2)  # a ratio, not percent
    assert (latency.batch, latency.length, latency.threads, latency.noisy_rounds) == (4, 5, 1, 0)


def test_rounds_are_spread_in_time():
    machine = FakeMachine()
    meter(machine, rounds=4, sleep_s=0.5).measure(Timed(machine, 5.0), TASK)
    assert machine.sleeps == [0.5] * 3


@pytest.mark.parametrize(
    ("ms", "forwards"),
    [
        (0.001, 5 + 3 * 50),  # all warm-up passes and repeats
        (2.0, 5 + 3 * 50),
        (10.0, 5 + 3 * 10),  # 0.1 seconds a round
        (5000.0, 1 + 3 * MIN_REPEATS),
    ],
)
def test_slow_networks_have_fewer_repeats(ms, forwards):
    machine = FakeMachine()
    network = Timed(machine, ms)
    MeasuredLatency(rounds=3, repeats=50, warmup=5, seconds=0.2999, machine=machine).measure(network, TASK)
    assert network.calls == forwards


def test_further_rounds_of_slow_networks_end_after_the_time_to_wait():
    machine = FakeMachine()
    networks = [Timed(machine, (1000.0, 500.0)) for _ in range(2)]  # every round is preempted
    latencies = meter(machine, rounds=2, sleep_s=0.01, wait_s=7.0).measure_all(networks, [TASK] * 2)
    assert [len(each.rounds_ms) for each in latencies] == [7, 7]  # after the first one, 1 s and a growing pause


@pytest.mark.parametrize(
    ("ms", "elapsed_s", "rounds"),
    [
        ((9.0, 5.0), 60.0, 14),  # preempted: further rounds until those and the pauses take 6 s, a tenth of the time
        ((9.0, 5.0), 0.0, 3),
        (5.0, 0.0, 3),  # quiet
        (2000.0, 0.0, 1),  # a forward pass takes longer than all rounds should
        (2000.0, 56.0, 2),  # with the warm-up these take 6 s, of 62
        (2000.0, 90.0, 3),
    ],
)
def test_beyond_a_share_of_the_time_no_further_rounds_follow_and_slow_networks_have_one(ms, elapsed_s, rounds):
    machine = FakeMachine()
    timer = meter(machine, repeats=1, wait_s=1e9)
    timer.time_share = TimeShare(0.1, lambda: elapsed_s + machine.now)
    first = timer.measure(Timed(machine, ms), TASK)
    assert len(first.rounds_ms) == rounds
    assert machine.now < max(0.1 * (elapsed_s + machine.now), 4.1)
    assert len(timer.measure(Timed(machine, ms), TASK).rounds_ms) <= rounds, "the time of earlier ones counts"


@pytest.mark.parametrize("slow", [(1.2, 1.0), (1.0, 1.2)], ids=["before", "after"])
def test_a_round_beside_a_slow_reference_is_noisy_and_replaced(slow):
    machine = FakeMachine(references=[1.0, 1.1, *slow, 1.0, 1.05, 1.0, 1.0])
    network = Timed(machine, 0.0, 5.0, 5.0, 6.0, 6.0, 5.1, 5.1, 5.2, 5.2)
    latency = meter(machine).measure(network, TASK)
    assert latency.rounds_ms == pytest.approx((5.0, 6.0, 5.1, 5.2))
    assert latency.noisy_rounds == 1
    assert latency.spread == pytest.approx(0.04)  # without noisy rounds


def test_a_machine_that_is_slow_during_a_whole_measurement_is_compared_with_earlier_ones():
    machine = FakeMachine(references=[1.0] * 6 + [1.2] * 4)
    timer = meter(machine)
    assert timer.measure(Timed(machine, 5.0), TASK).noisy_rounds == 0
    later = timer.measure(Timed(machine, *[6.0] * 5, 5.0), TASK)
    assert (later.noisy_rounds, later.ms) == (2, pytest.approx(5.0))


PREEMPTED = [(0.0, 0.0), (5.0, 5.0), (5.0, 5.0), (9.0, 6.0), (9.0, 6.0), (5.0, 5.0)]


def test_a_preempted_round_is_replaced_and_counts_by_its_cpu_time():
    machine = FakeMachine()
    latency = meter(machine).measure(Timed(machine, *PREEMPTED), TASK)
    assert latency.rounds_ms == pytest.approx((5.0, 6.0, 5.0, 5.0))
    assert (latency.noisy_rounds, latency.spread) == (1, pytest.approx(0.0))


def test_with_several_threads_only_wall_clock_time_counts():
    machine = FakeMachine()
    latency = meter(machine, threads=2).measure(Timed(machine, *PREEMPTED), TASK)
    assert latency.rounds_ms == pytest.approx((5.0, 9.0, 5.0))
    assert latency.noisy_rounds == 0


def test_the_pauses_before_further_rounds_double_until_their_sum_reaches_a_limit():
    machine = FakeMachine()
    always = Timed(machine, (0.0, 0.0), (9.0, 6.0), (8.0, 5.0), (9.0, 6.0))
    latency = meter(machine, sleep_s=0.25, wait_s=3.0).measure(always, TASK)
    assert machine.sleeps == [0.25, 0.25, 0.5, 1.0, 1.0]
    assert (latency.noisy_rounds, len(latency.rounds_ms)) == (6, 6)
    assert latency.ms == pytest.approx(5.0)
    assert latency.spread == pytest.approx(0.2)


def test_further_rounds_follow_until_the_two_fastest_agree():
    machine = FakeMachine()
    latency = meter(machine).measure(Timed(machine, 0.0, 7.0, 7.0, 6.0, 6.0, 5.0, 5.0, 5.5, 5.5, 5.1), TASK)
    assert latency.rounds_ms == pytest.approx((7.0, 6.0, 5.0, 5.5, 5.1))
    assert latency.ms == pytest.approx(5.0)


def test_rounds_of_networks_measured_together_alternate():
    machine, log = FakeMachine(), []
    slow, fast = Timed(machine, 5.0, log=log), Timed(machine, 2.0, log=log)
    latencies = meter(machine).measure_all([slow, fast], [TASK, TASK])
    assert [latency.ms for latency in latencies] == pytest.approx([5.0, 2.0])
    assert [network for network, *_ in log] == [slow, fast] + [slow, slow, fast, fast] * 3


def test_only_networks_with_noisy_rounds_get_further_rounds():
    machine = FakeMachine()
    quiet, noisy = Timed(machine, 2.0), Timed(machine, (0.0, 0.0), (9.0, 5.0), (9.0, 5.0), (5.0, 5.0))
    latencies = meter(machine).measure_all([quiet, noisy], [TASK, TASK])
    assert [len(latency.rounds_ms) for latency in latencies] == [3, 4]


def test_without_networks_there_are_no_latencies():
    assert MeasuredLatency().measure_all([], []) == []


def test_forward_passes_run_in_inference_mode_with_the_requested_inputs():
    machine = FakeMachine()
    network = Timed(machine, 5.0)
    meter(machine, batch=3, length=6, threads=2).measure(network, TASK)
    for _, inputs, training, inference, threads in network.log:
        assert torch.equal(inputs, TASK.sample(3, 6).inputs)
        assert (training, inference, threads) == (False, True, 2)


class Breaks(Timed):
    def forward(self, batch):
        raise RuntimeError("out of memory")


def is_locked():
    """Whether the lock is held, as seen by another thread or process."""
    with lock_path().open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("kind", [Timed, Breaks])
def test_modes_threads_and_lock_are_restored_even_after_an_error(kind, private_lock):
    machine = FakeMachine()
    network = kind(machine, 5.0)
    before = torch.get_num_threads()
    try:
        meter(machine, threads=before + 1).measure(network, TASK)
    except RuntimeError:
        assert kind is Breaks
    assert (network.training, network.inner.training) == (True, False)
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()
    assert not is_locked()


@pytest.fixture
def private_lock(tmp_path, monkeypatch):
    """A lock file of this test alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return lock_path()


class ChecksLock(Timed):
    def forward(self, batch):
        super().forward(batch)
        self.locked = is_locked()


def test_the_lock_is_held_while_measuring(private_lock):
    machine = FakeMachine()
    network = ChecksLock(machine, 5.0)
    meter(machine).measure(network, TASK)
    assert network.locked
    assert not is_locked()


def test_the_lock_blocks_other_threads_and_processes(private_lock):
    entered = threading.Event()

    def wait():
        with measurement_lock():
            entered.set()

    program = f"import fcntl; fcntl.flock(open({str(private_lock)!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    waiting = threading.Thread(target=wait)
    with measurement_lock():
        waiting.start()
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in other.stderr
        assert not entered.is_set()
    waiting.join()
    assert entered.is_set()


def test_the_lock_file_must_not_be_a_link(private_lock, tmp_path):
    (tmp_path / "mine").write_text("precious")
    private_lock.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=private_lock.name), measurement_lock():
        pass


def passes(wait, seconds):
    """Whether ``wait`` returns within the time."""
    passed = threading.Event()
    threading.Thread(target=lambda: (wait(), passed.set()), daemon=True).start()
    return passed.wait(seconds)


def test_a_training_waits_while_another_process_measures_but_not_for_ever(private_lock, monkeypatch):
    with WaitWhileMeasuring() as wait:
        assert passes(wait, 10)
        with measurement_lock():
            assert not passes(wait, 0.1)
        assert passes(wait, 10)
        with measurement_lock():
            monkeypatch.setattr(exclusive, "MAX_WAIT_S", 0.1)
            assert passes(wait, 10)
            monkeypatch.setattr(exclusive, "MAX_WAIT_S", 60)
            assert passes(wait, 10)  # the next batches do not wait for the same measurement again
        assert passes(wait, 10)
        with measurement_lock():  # for the next measurement they do
            assert not passes(wait, 0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities per thread")
@pytest.mark.parametrize("allowed", [True, False])
def test_the_measuring_thread_has_the_highest_priority_that_is_allowed(monkeypatch, allowed):
    seen, now = [], [0]

    def setpriority(which, thread, priority):
        if not allowed:
            raise PermissionError
        seen.append(priority)
        now[0] = priority

    monkeypatch.setattr(os, "getpriority", lambda which, thread: now[0])
    monkeypatch.setattr(os, "setpriority", setpriority)
    with highest_thread_priority():
        assert now[0] == (-20 if allowed else 0)
    assert seen == ([-20, 0] if allowed else [])


class Inputs(nn.Module):
    """The input tokens of a batch."""

    def forward(self, batch):
        return batch.inputs


def embedding():
    return nn.Sequential(Inputs(), nn.Embedding(3, 4))


def test_a_measurement_on_the_real_machine_is_consistent():
    latency = MeasuredLatency(rounds=2, repeats=2, sleep_s=0.0, wait_s=0.0).measure(
        nn.Sequential(Inputs(), nn.Embedding(3, 4)), TASK
    )
    assert latency.ms > 0
    assert latency.spread >= 0
    assert len(latency.rounds_ms) >= 2
    assert min(latency.rounds_ms) == latency.ms


def test_flops_latency_is_flops_over_speed():
    network = nn.Sequential(Inputs(), nn.Embedding(3, 4), nn.Linear(4, 5))
    counted = flops(network, TASK.sample(2))
    assert counted == 2 * 2 * 8 * 4 * 5
    latency = FlopsLatency(batch=2, gflops_per_s=0.5).measure(network, TASK)
    assert latency.ms == counted / 0.5e9 * 1e3
    assert (latency.spread, latency.batch, latency.length, latency.threads) == (0.0, 2, 8, 1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: MeasuredLatency(batch=0), "batch=0: it must be a whole number from 1 to 4096"),
        (lambda: MeasuredLatency(rounds=0), "rounds=0"),
        (lambda: MeasuredLatency(threads=100_000), "threads=100000: it must be a whole number from 1 to 256"),
        (lambda: FlopsLatency(gflops_per_s=float("inf")), "gflops_per_s=inf"),
        (lambda: MeasuredLatency(seconds=-1.0), "seconds=-1.0: it must be a number from 0"),
        (lambda: FlopsLatency(length=0), "length=0"),
        (lambda: FlopsLatency(gflops_per_s=0.0), "it must be a number above 0"),
        (
            lambda: MeasuredLatency(length=9).measure(embedding(), TASK),
            "lengths from 1 to 8",
        ),
        (lambda: MeasuredLatency().measure(nn.Embedding(3, 4, device="meta"), TASK), "a network on meta"),
    ],
)
def test_invalid_settings_are_rejected(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize("path", sorted(YAMLS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_shows_the_defaults_and_its_command(path):
    settings = yaml.safe_load(path.read_text())
    settings.pop("host", None)  # of remote: it has no default
    if "defaults" in settings:
        assert settings.pop("defaults")[-1] == "_self_"
        settings = yaml.safe_load((YAMLS / "measured.yaml").read_text())
    meter = get_class(settings.pop("_target_"))
    defaults = {name: parameter.default for name, parameter in inspect.signature(meter).parameters.items()}
    assert settings == {
        name: list(default) if isinstance(default, tuple) else default
        for name, default in defaults.items()
        if name in settings
    }
    assert re.match(
        rf"# Try it:  python -m search.run \+space=\w+ latency={path.stem}\b", path.read_text().splitlines()[1]
    )


FAULTS = """
import resource, torch
from search.costs.allocator import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
for repeat in range(20):
    if repeat == 10:  # by then the heap has grown to its size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(4_000_000) for _ in range(4)]  # 16 MB each
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_is_kept_costs_no_page_faults_when_it_is_used_again():
    # By default there are none, or some 100,000, by chance.
    assert int(subprocess.check_output([sys.executable, "-c", FAULTS], text=True)) < 100
