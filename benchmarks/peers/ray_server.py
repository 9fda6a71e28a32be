"""Ray Serve: one proxy, one replica per core, dynamic batches."""

import os
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.classifier import answers, load, prepare

CORES = int(os.environ["CORES"])


@serve.deployment(num_replicas=CORES, max_ongoing_requests=32, ray_actor_options={"num_cpus": 1})
class Classifier:
    """Decodes in the replica; a batch has the requests that arrived within the timeout."""

    def __init__(self) -> None:
        self.predictor = load()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def classify(self, samples: list[Any]) -> list[Any]:
        """Compute a batch."""
        return answers(self.predictor, samples)

    async def __call__(self, request: Request) -> Any:  # noqa: ANN401 — JSON
        """Classify the fields of a form."""
        form = await request.form()
        return await self.classify(prepare(self.predictor, await form["image"].read(), form["text"]))


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Classifier.bind(), blocking=True)
