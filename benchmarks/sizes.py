"""What one item costs by its size: processor time of preparing and of computing it alone, on one thread, the least of 25 times.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.sizes [BUNDLE]

Prints the table of docs/operations.md, Sizing. Processor time, since it hardly feels what else a machine does.
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
PICTURES = (
    (640, 480, "JPEG"),
    (1600, 1200, "JPEG"),
    (4000, 3000, "JPEG"),
    (640, 480, "PNG"),
    (1600, 1200, "PNG"),
    (4000, 3000, "WebP"),
)


def picture(width: int, height: int, kind: str) -> bytes:
    """Smooth patches of colour, which pack about as well as a photograph."""
    patches = np.random.default_rng(3).integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).save(packed, kind)
    return packed.getvalue()


def main() -> None:
    """Measure, and print a row for each kind of item."""
    predictor = load_bundle(Path(sys.argv[1]) if len(sys.argv) > 1 else embedded_bundle().path, threads=1)
    items = {f"a text of {len(text):,} characters": {"text": text} for text in (TEXT, TEXT * 25)}
    items |= {
        f"{kind}, {w:,} × {h:,}, with it": {"image": picture(w, h, kind), "text": TEXT} for w, h, kind in PICTURES
    }
    print("| one item | bytes | prepare | in all |\n|---|---|---|---|")
    for name, parts in items.items():
        prepared, whole = [], []
        for _ in range(REPEATS):
            began = time.process_time()
            sample = predictor.prepare(parts)
            prepared.append(time.process_time() - began)
            predictor.predict([sample])
            whole.append(time.process_time() - began)
        size = f"{sum(map(len, parts.values())) / 1000:,.1f} KB"
        print(f"| {name} | {size} | {min(prepared) * 1000:.1f} ms | {min(whole) * 1000:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
