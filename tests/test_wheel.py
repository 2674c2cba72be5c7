"""The installed wheel, without this checkout, run in a folder with a user's own files."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN_FILES = {
    "my_module.py": """
import torch
from spaces.attention import Mechanism
from spaces.tasks import Batch, TaskSpec, Task

class Mean(Mechanism):
    def __init__(self, shape, *, share):
        super().__init__(shape)
        self.share = share

    def mix(self, x, padding):
        return self.share * x.mean(1, keepdim=True).expand_as(x)

class Majority(Task):
    def __init__(self, *, length):
        self.spec = TaskSpec(length=length, vocabulary=2, classes=2, per_token=False)
        self.chance = 0.5

    def examples(self, split):
        inputs = torch.randint(2, (96, self.spec.length), generator=torch.Generator().manual_seed(len(split)))
        return Batch(inputs, None, (2 * inputs.sum(1) > self.spec.length).long())
""",
    "my_conf/attention/mean.yaml": "mean:\n  _target_: my_module.Mean\n  share: {float: [0.5, 1.0]}\n",
    "my_conf/task/majority.yaml": "_target_: my_module.Majority\nlength: 9\n",
    "my_conf/space/mine.yaml": """
defaults:
  - /attention: [mean, softmax]
  - _self_
model: {_target_: spaces.models.encoder.Encoder, depth: 1, width: {choice: [4, 8]}, heads: 1}
train: {epochs: 2, lr: 0.01}
""",
}


@pytest.mark.slow
def test_the_wheel_runs_a_users_own_space_mechanism_and_task(tmp_path):
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=False)
    (site,) = clean.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
    )
    # The dependencies are those of this environment: Python searches a folder listed in a .pth file, but does not read
    # the .pth files in it, such as that of an editable install.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    folder = tmp_path / "mine"
    for name, text in OWN_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [clean / "bin" / "python", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    paths = run("-c", "import search, spaces; print(search.__file__); print(spaces.__file__)").stdout.splitlines()
    assert all(line.startswith(str(site)) for line in paths)
    own = ["--config-dir", "my_conf", "+space=mine", "task=majority", "latency=flops"]
    searched = run("-m", "search.run", *own, "n_trials=4", "sampler=random")
    assert searched.returncode == 0, searched.stderr
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "search/pruning/OPTUNA.md").read_text(), re.DOTALL)
    optuna_study = run("-c", f"{example}\nprint(len(study.trials), 'trials')")
    assert optuna_study.stdout == "40 trials\n", optuna_study.stderr
    assert "The front: " in searched.stdout
    assert "mean" in searched.stdout
    assert (folder / "paretoformer.db").exists()
    assert (folder / "mlflow.db").exists()
    listed = run("-m", "search.run", "--config-dir", "my_conf", "--help").stdout
    assert all(name in listed for name in ("mine", "majority", "mean", "linformer"))
    refused = run("-m", "search.run", *own, "study=other", "+space.attention.mean.sahre=1")
    assert refused.returncode == 2
    assert "attention.mean" in refused.stderr
