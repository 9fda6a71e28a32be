"""Cost of one item by its size: processor time of preparing and computing it alone on one thread, the minimum of 25 runs.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.sizes [BUNDLE]

Prints the table of docs/operations.md, Sizing. Processor time depends little on other load of the machine.
"""

import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from polymodal.app.settings import embedded_bundle
from polymodal.model import load_bundle

REPEATS = 25
TEXT = b"a sailing dinghy has capsized on the lake"
IMAGES = (
    (640, 480, "JPEG"),
    (1600, 1200, "JPEG"),
    (4000, 3000, "JPEG"),
    (640, 480, "PNG"),
    (1600, 1200, "PNG"),
    (4000, 3000, "WebP"),
)


def image_file(width: int, height: int, kind: str) -> bytes:
    """Return smooth patches of colour, which compress about as well as a photograph."""
    patches = np.random.default_rng(3).integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).save(content, kind)
    return content.getvalue()


def main() -> None:
    """Measure, and print a row of Markdown for each item."""
    predictor = load_bundle(Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_bundle().path, threads=1)
    items = {f"a text of {len(text):,} characters": {"text": text} for text in (TEXT, TEXT * 25)}
    for width, height, kind in IMAGES:
        items[f"{kind}, {width:,} × {height:,}, with it"] = {"image": image_file(width, height, kind), "text": TEXT}
    print("| one item | bytes | prepare | in all |\n|---|---|---|---|")
    for name, inputs in items.items():
        prepared, whole = [], []
        for _ in range(REPEATS):
            started = time.process_time()
            sample = predictor.prepare(inputs)
            prepared.append(time.process_time() - started)
            predictor.predict([sample])
            whole.append(time.process_time() - started)
        size = f"{sum(map(len, inputs.values())) / 1000:,.1f} KB"
        print(f"| {name} | {size} | {min(prepared) * 1000:.1f} ms | {min(whole) * 1000:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
