"""LitServe: dynamic batches, one worker per core."""

import os
from typing import Any

import litserve
from fastapi import Request

from benchmarks.peers.classifier import answers, load, prepare


class Classifier(litserve.LitAPI):
    """Decodes in the worker; a batch has the requests that arrived within the timeout."""

    def setup(self, device: str) -> None:
        """Load the model, once in each worker."""
        self.predictor = load()

    def decode_request(self, request: Request) -> Any:  # noqa: ANN401 — a sample
        """Convert the fields of a form to a sample."""
        return prepare(self.predictor, request["image"].file.read(), request["text"])

    def predict(self, samples: Any) -> Any:  # noqa: ANN401 — a batch
        """Compute a batch."""
        return answers(self.predictor, samples)

    def encode_response(self, output: Any) -> Any:  # noqa: ANN401
        """Return it unchanged."""
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=8, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["CORES"]), timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")
