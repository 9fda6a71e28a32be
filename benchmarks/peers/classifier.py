"""The model of all peers: the bundle in the folder BUNDLE, with the runtime RUNTIME.

RUNTIME is torch (eager; Pillow opens, converts and resizes the image, as the peers' own documentation shows) or onnx-int8
(Polymodal's own decoding, graphs and sessions).
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from polymodal.model import Network, Sample, load_bundle

SIDE: Final = 160
"""Pixels per side of the image encoder's square input in the embedded bundle."""


def load() -> Network:
    """Load the bundle with one thread, because every peer runs one process per core."""
    predictor = load_bundle(Path(os.environ["BUNDLE"]), runtime=os.environ["RUNTIME"], threads=1)
    predictor.warm_up()
    return predictor


def prepare(predictor: Network, image: bytes, text: str | bytes) -> Sample:
    """Decode and preprocess one item."""
    if os.environ["RUNTIME"] != "torch":
        return predictor.prepare({"image": image, "text": text})
    prepared_text = predictor.prepare({"text": text})
    pixels = Image.open(io.BytesIO(image)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return Sample({"image": np.asarray(pixels), **prepared_text.arrays})


def answers(predictor: Network, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return the scores by label of each sample."""
    return [{"scores": dict(prediction.scores)} for prediction in predictor.predict(samples)]
