"""What every peer serves: the same bundle, in the runtime that the environment names.

RUNTIME is torch (eager, with the picture opened, converted and resized by Pillow, as the peers' own documentation shows) or
onnx-int8 (Polymodal's own decoding, graphs and sessions); BUNDLE is the folder.
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
"""Of the square that the embedded bundle's image encoder takes, in pixels."""


def load() -> Network:
    """One thread for each process: every peer runs as many as there are cores."""
    predictor = load_bundle(Path(os.environ["BUNDLE"]), runtime=os.environ["RUNTIME"], threads=1)
    predictor.warm_up()
    return predictor


def prepare(predictor: Network, image: bytes, text: str | bytes) -> Sample:
    """Decoded and preprocessed."""
    if os.environ["RUNTIME"] != "torch":
        return predictor.prepare({"image": image, "text": text})
    words = predictor.prepare({"text": text})
    picture = Image.open(io.BytesIO(image)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return Sample({"image": np.asarray(picture), **words.arrays})


def answers(predictor: Network, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Scores by label for each."""
    return [{"scores": dict(each.scores)} for each in predictor.predict(samples)]
