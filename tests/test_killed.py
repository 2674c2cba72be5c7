"""A trial that kills its workers, as the kernel does when memory runs out."""

import multiprocessing
import os
import signal

import pytest
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


MODEL = {**TREE["model"], "_target_": "test_killed.Hungry"}
SPACE = {"attention": {"softmax": TREE["attention"]["softmax"]}, "model": MODEL, "train": {**TREE["train"], "lr": 0.01}}


def work(url):
    """Run a worker in a process of its own."""
    run_trials(tiny_study(url), tiny_search(SPACE), 2, reporter=Reports())
    close_opened()


@pytest.mark.slow
def test_a_trial_that_kills_three_workers_is_pruned_and_the_fourth_ends_the_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
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
