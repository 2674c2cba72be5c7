import pytest
from tiny_task import run_trials, tiny_identity, tiny_search, tiny_study

from search.costs.__main__ import main
from search.costs.drift import scaled, unscaled
from search.costs.latency import MeasuredLatency
from search.study.records import Timing


def test_scaling_by_the_reference_undoes_a_uniform_slowdown():
    then = [Timing(ms=3.0 * slow, spread=0.0, host="here", at=0.0, reference_ms=0.1 * slow) for slow in (1.0, 1.5)]
    now = [Timing(ms=6.0, spread=0.0, host="here", at=9.0, reference_ms=0.2)] * 2
    assert unscaled(then).tolist() == [3.0, 4.5]
    assert scaled(then, now).tolist() == pytest.approx([6.0, 6.0])


@pytest.fixture
def identity():
    return tiny_identity({"_target_": "search.costs.latency.MeasuredLatency", "repeats": 2, "rounds": 1})


@pytest.fixture
def study(url, identity):
    study = tiny_study(url, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    return study


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.mark.slow
def test_the_timings_of_a_study_are_compared_with_a_new_measurement(study, url, identity, capsys):
    run_trials(study, tiny_search(meter=MeasuredLatency(repeats=2, rounds=1)), 6)
    before = [trial.user_attrs for trial in study.trials]
    assert main(["tiny", "--storage", url]) == 0
    networks, raw, by_reference = capsys.readouterr().out.splitlines()
    assert networks.startswith(("3 networks", "4 networks", "5 networks", "6 networks"))
    for line in (raw, by_reference):
        assert "median error" in line
        assert "Spearman" in line
    assert [trial.user_attrs for trial in tiny_study(url, identity=identity).trials] == before, "nothing is written"


@pytest.mark.slow
def test_studies_without_measured_latencies_and_unknown_studies_are_refused(study, url, capsys):
    run_trials(study, tiny_search(), 1)  # latency is computed from FLOPs there
    assert main(["tiny", "--storage", url]) == 2
    assert "0 networks of the study were measured on" in capsys.readouterr().err
    assert main(["tniy", "--storage", url]) == 2
    assert "there is no study 'tniy' in sqlite:///" in capsys.readouterr().err
