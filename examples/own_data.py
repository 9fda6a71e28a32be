"""Own data in five minutes: a table of pictures and words, a model trained on it, and a service that answers.

    python examples/own_data.py

What is drawn here stands for your photographs; everything after the table is what you would do with them.
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
"""Label: colour, width and height, and what sellers say."""


def draw(label: str, path: Path) -> None:
    """A fruit somewhere on a tablecloth."""
    colour, (width, height), _ = FRUIT[label]
    side, x, y = random.randint(24, 52), random.randint(30, 66), random.randint(30, 66)
    picture = Image.new("RGB", (96, 96), random.choice(["white", "linen", "azure", "honeydew", "lavender"]))
    box = (x - side * width / 2, y - side * height / 2, x + side * width / 2, y + side * height / 2)
    ImageDraw.Draw(picture).ellipse(box, fill=colour)
    picture.save(path)


def write_table(folder: Path, rows: int) -> Path:
    """The manifest: image,text,label. Of seven rows, one has no picture and one no words."""
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
    """One command, shown as you would type it."""
    words = [str(argument) for argument in arguments]
    print("$ polymodal", *words, flush=True)
    subprocess.run([POLYMODAL, *words], check=True)


def ask(url: str, picture: Path) -> None:
    """With both, with the picture alone, with words alone."""
    for parts in (
        {"image": picture.read_bytes(), "text": (None, "round and soft")},
        {"image": picture.read_bytes()},
        {"text": (None, "round and soft")},
    ):
        answer = httpx.post(f"{url}/v1/classify", files=parts, trust_env=False).raise_for_status().json()
        scores = ", ".join(f"{each['label']} {each['score']:.0%}" for each in answer["labels"])
        print(f"from {' + '.join(answer['modalities'])}: {scores}")


def serve_and_ask(bundle: Path, picture: Path) -> None:
    """A service for as long as the questions take."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    print(f"$ POLYMODAL_BUNDLES={bundle} POLYMODAL_PORT={port} polymodal serve", flush=True)
    environment = {
        **os.environ,
        "POLYMODAL_BUNDLES": str(bundle),
        "POLYMODAL_PORT": str(port),
        "POLYMODAL_LOG_LEVEL": "warning",
    }
    service = subprocess.Popen([POLYMODAL, "serve"], env=environment)
    try:
        while service.poll() is None:
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                    break
            except httpx.TransportError:  # not listening yet
                time.sleep(0.2)
        ask(url, picture)
    finally:
        service.terminate()
        service.wait()


def main() -> None:
    """Table, check, training, evaluation, service, questions."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/own-data"), help="folder for everything")
    options.add_argument("--rows", type=int, default=180)
    options.add_argument("--epochs", type=int, default=10)
    chosen = options.parse_args()
    random.seed(0)
    table = write_table(chosen.out, chosen.rows)
    bundle = chosen.out / "bundle"
    polymodal("check", table)
    polymodal("train", table, "--preset", "cnn-rnn", "--epochs", chosen.epochs, "--name", "fruit", "--out", bundle)
    splits = bundle.with_name("bundle.run") / "split.csv"
    polymodal("evaluate", bundle, table, "--split", "test", "--splits", splits, "--out", chosen.out / "report")
    draw("plum", chosen.out / "new.png")
    serve_and_ask(bundle, chosen.out / "new.png")


if __name__ == "__main__":
    main()
