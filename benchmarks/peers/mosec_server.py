"""mosec: the first stage decodes, the second computes dynamic batches; bodies in msgpack, as its documentation shows."""

import os
from typing import Any

from mosec import Server, Worker
from mosec.mixin import MsgpackMixin

from benchmarks.peers.classifier import answers, load, prepare


class Decode(MsgpackMixin, Worker):
    """Converts bodies to samples, which mosec pickles for the next stage."""

    def __init__(self) -> None:
        self.predictor = load()

    def forward(self, data: Any) -> Any:  # noqa: ANN401
        """Convert one body."""
        return prepare(self.predictor, data["image"], data["text"])


class Infer(MsgpackMixin, Worker):
    """Computes dynamic batches."""

    def __init__(self) -> None:
        self.predictor = load()

    def forward(self, data: Any) -> Any:  # noqa: ANN401
        """Compute a batch."""
        return answers(self.predictor, data)


if __name__ == "__main__":
    cores = int(os.environ["CORES"])
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(Infer, num=cores, max_batch_size=8, max_wait_time=5)
    server.run()
