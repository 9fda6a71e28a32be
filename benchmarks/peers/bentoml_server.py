"""BentoML: as many workers as there are cores, one item at a time (its batches take one argument, and a form has two)."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.classifier import answers, load, prepare


@bentoml.service(workers=int(os.environ["CORES"]), traffic={"timeout": 60})
class Classifier:
    """One item after the other in each worker."""

    def __init__(self) -> None:
        self.predictor = load()

    @bentoml.api
    def predict(self, image: Path, text: str) -> dict[str, Any]:
        """A form's parts; the picture arrives as a file."""
        return answers(self.predictor, [prepare(self.predictor, image.read_bytes(), text)])[0]
