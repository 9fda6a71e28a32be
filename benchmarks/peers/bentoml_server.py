"""BentoML: one worker per core, one item at a time, because its batches take one argument and a form has two."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.classifier import answers, load, prepare


@bentoml.service(workers=int(os.environ["CORES"]), traffic={"timeout": 60})
class Classifier:
    """Computes one item after another."""

    def __init__(self) -> None:
        self.predictor = load()

    @bentoml.api
    def predict(self, image: Path, text: str) -> dict[str, Any]:
        """Classify the fields of a form; the image arrives as a file."""
        return answers(self.predictor, [prepare(self.predictor, image.read_bytes(), text)])[0]
