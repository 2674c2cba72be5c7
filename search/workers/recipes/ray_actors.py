"""Workers of a study as Ray actors. Try it: python ray_actors.py 8 +space=nlp storage.url=grpc://HOST:13000."""
# ruff: noqa: D101, D102

import subprocess
import sys
from typing import Any

import ray


class Worker:
    def run(self, *arguments: str) -> int:
        return subprocess.call([sys.executable, "-m", "search.run", "workers=1", *arguments])


actor: Any = ray.remote(num_cpus=1, num_gpus=0, max_restarts=-1, max_task_retries=-1)(Worker)  # 0.5: two share one
workers = [actor.remote() for _ in range(int(sys.argv[1]))]
sys.exit(max(ray.get([worker.run.remote(*sys.argv[2:]) for worker in workers])))
