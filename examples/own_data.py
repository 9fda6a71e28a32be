"""Your own data in five minutes: a table of images and texts, a model trained on it, and a service with it.

    python examples/own_data.py

The drawings stand for your photographs; everything after the table works the same with yours.
"""

import argparse
import csv
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image, ImageDraw

POLYMODAL = str(Path(sys.executable).with_name("polymodal"))
FRUIT = {
    "apple": ("crimson", (1.0, 1.0), ["round and crisp", "sweet, a little sour", "good for a pie"]),
    "banana": ("gold", (1.6, 0.5), ["long and soft", "sweet, peel it first", "good for a shake"]),
    "plum": ("indigo", (0.7, 0.9), ["round and soft", "sweet, with a stone", "good for a pie"]),
}
"""Label: colour, width and height, and texts of sellers."""


def draw(label: str, path: Path) -> None:
    """Draw a fruit somewhere on a tablecloth."""
    colour, (width, height), _ = FRUIT[label]
    side, x, y = random.randint(24, 52), random.randint(30, 66), random.randint(30, 66)
    image = Image.new("RGB", (96, 96), random.choice(["white", "linen", "azure", "honeydew", "lavender"]))
    box = (x - side * width / 2, y - side * height / 2, x + side * width / 2, y + side * height / 2)
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    image.save(path)


def write_table(folder: Path, rows: int) -> Path:
    """Write a manifest with image,text,label. Of seven rows, one has no image and one no text."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    table = folder / "fruit.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "label"])
        for number in range(rows):
            label = list(FRUIT)[number % len(FRUIT)]
            image, text = f"photos/{number}.png", random.choice(FRUIT[label][2])
            draw(label, folder / image)
            writer.writerow(["" if number % 7 == 5 else image, "" if number % 7 == 2 else text, label])
    return table


def polymodal(*arguments: object) -> None:
    """Print a command as you would type it, and run it."""
    words = [str(argument) for argument in arguments]
    print("$ polymodal", *words, flush=True)
    subprocess.run([POLYMODAL, *words], check=True)


def classify(url: str, image: Path) -> None:
    """Classify an image with a text, the image alone, and the text alone."""
    for fields in (
        {"image": image.read_bytes(), "text": (None, "round and soft")},
        {"image": image.read_bytes()},
        {"text": (None, "round and soft")},
    ):
        result = httpx.post(f"{url}/v1/classify", files=fields, trust_env=False).raise_for_status().json()
        scores = ", ".join(f"{label['label']} {label['score']:.0%}" for label in result["labels"])
        print(f"from {' + '.join(result['modalities'])}: {scores}")


def serve_and_classify(bundle: Path, image: Path) -> None:
    """Start a service, send the requests, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    print(f"$ POLYMODAL_BUNDLES={bundle} POLYMODAL_PORT={port} polymodal serve", flush=True)
    settings = {"BUNDLES": str(bundle), "PORT": str(port), "LOG_LEVEL": "warning"}
    environment = os.environ | {f"POLYMODAL_{name}": value for name, value in settings.items()}
    service = subprocess.Popen([POLYMODAL, "serve"], env=environment)
    try:
        while service.poll() is None:
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                    break
            except httpx.TransportError:  # not listening yet
                time.sleep(0.2)
        classify(url, image)
    finally:
        service.terminate()
        service.wait()


def main() -> None:
    """Write a table, check it, train, evaluate, serve, and send requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/own-data"), help="folder for everything")
    parser.add_argument("--rows", type=int, default=180)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    random.seed(0)
    table = write_table(options.out, options.rows)
    bundle = options.out / "bundle"
    polymodal("check", table)
    polymodal("train", table, "--preset", "cnn-rnn", "--epochs", options.epochs, "--name", "fruit", "--out", bundle)
    splits = bundle.with_name("bundle.run") / "split.csv"
    polymodal("evaluate", bundle, table, "--split", "test", "--splits", splits, "--out", options.out / "report")
    draw("plum", options.out / "new.png")
    serve_and_classify(bundle, options.out / "new.png")


if __name__ == "__main__":
    main()
