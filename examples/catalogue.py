"""Classify a catalogue with missing images and titles: confident results get a label, the others go to a person.

make serve
python examples/catalogue.py examples/catalogue.csv
"""

import argparse
import base64
import csv
from pathlib import Path
from typing import Any

import httpx

MIN_SCORE = 0.6
"""Lowest score that is accepted without a check; `polymodal evaluate` on your own rows reports its accuracy."""


def as_item(row: dict[str, str], folder: Path) -> dict[str, str]:
    """Convert an entry to an item of a batch request, without missing fields."""
    item = {"id": row["article"]}
    if row["title"]:
        item["text"] = row["title"]
    if row["picture"]:
        item["image"] = base64.b64encode((folder / row["picture"]).read_bytes()).decode()
    return item


def summary(item: dict[str, Any]) -> str:
    """Return a label, an uncertain label, or the error of an entry."""
    if item["status"] != 200:
        return f"not classified: {item['problem']['title']}"
    classification = item["classification"]
    best = classification["labels"][0]
    label = f"{best['label']} ({best['score']:.0%}, from {' + '.join(classification['modalities'])})"
    return label if best["score"] >= MIN_SCORE else f"for a person: perhaps {label}"


def main() -> None:
    """Send the table as one batch request, which may have up to 64 items by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "catalogue", type=Path, help="CSV with article,title,picture; image paths are relative to its folder"
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    with options.catalogue.open(encoding="utf-8-sig", newline="") as file:
        items = [as_item(row, options.catalogue.parent) for row in csv.DictReader(file)]
    body = {"items": items, "top_k": 1}
    response = httpx.post(f"{options.url}/v1/classify/batch", json=body, timeout=30, trust_env=False)
    for item in response.raise_for_status().json()["items"]:
        print(item["id"], summary(item))


if __name__ == "__main__":
    main()
