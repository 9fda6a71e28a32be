"""mosec: one stage of processes decodes, the next computes dynamic batches; msgpack bodies, as its documentation shows."""

import os
from typing import Any

from mosec import Server, Worker
from mosec.mixin import MsgpackMixin

from benchmarks.peers.classifier import answers, load, prepare


class Decode(MsgpackMixin, Worker):
    """Bodies to samples; between the stages mosec pickles."""

    def __init__(self) -> None:
        self.predictor = load()

    def forward(self, data: Any) -> Any:  # noqa: ANN401
        """One at a time."""
        return prepare(self.predictor, data["image"], data["text"])


class Infer(MsgpackMixin, Worker):
    """Dynamic batches."""

    def __init__(self) -> None:
        self.predictor = load()

    def forward(self, data: Any) -> Any:  # noqa: ANN401
        """A batch."""
        return answers(self.predictor, data)


if __name__ == "__main__":
    cores = int(os.environ["CORES"])
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(Infer, num=cores, max_batch_size=8, max_wait_time=5)
    server.run()
