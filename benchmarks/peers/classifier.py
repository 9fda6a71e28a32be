"""What every peer serves: the same bundle, prepared by the same code, in the runtime that the environment names.

RUNTIME is torch (eager, as the peers' own documentation shows) or onnx-int8 (what Polymodal itself uses); BUNDLE is the folder.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model import Predictor, Sample, load_bundle


def load() -> Predictor:
    """One thread for each process: every peer runs as many as there are cores."""
    predictor = load_bundle(Path(os.environ["BUNDLE"]), runtime=os.environ["RUNTIME"], threads=1)
    predictor.warm_up()
    return predictor


def prepare(predictor: Predictor, image: bytes, text: str | bytes) -> Sample:
    """Decoded and preprocessed."""
    return predictor.prepare({"image": image, "text": text})


def answers(predictor: Predictor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Scores by label for each."""
    return [{"scores": dict(each.scores)} for each in predictor.predict(samples)]
