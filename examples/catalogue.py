"""A catalogue, in which some entries lack their picture or their title: who is sure gets a label, the rest goes to a person.

make serve
python examples/catalogue.py examples/catalogue.csv
"""

import argparse
import base64
import csv
from pathlib import Path
from typing import Any

import httpx

SURE = 0.6
"""The least score that is taken without a look; `polymodal evaluate` on your own rows tells what it is worth."""


def as_item(row: dict[str, str], folder: Path) -> dict[str, str]:
    """What there is of an entry; what is missing is left out."""
    item = {"id": row["article"]}
    if row["title"]:
        item["text"] = row["title"]
    if row["picture"]:
        item["image"] = base64.b64encode((folder / row["picture"]).read_bytes()).decode()
    return item


def verdict(item: dict[str, Any]) -> str:
    """A label, a doubtful label, or what is wrong with the entry."""
    if item["status"] != 200:
        return f"not classified: {item['problem']['title']}"
    answer, best = item["classification"], item["classification"]["labels"][0]
    said = f"{best['label']} ({best['score']:.0%}, from {' + '.join(answer['modalities'])})"
    return said if best["score"] >= SURE else f"for a person: perhaps {said}"


def main() -> None:
    """One batch request for the whole table; up to 64 entries are one, unless the service says otherwise."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("catalogue", type=Path, help="CSV with article,title,picture; pictures lie beside it")
    options.add_argument("--url", default="http://127.0.0.1:8000")
    chosen = options.parse_args()
    with chosen.catalogue.open(encoding="utf-8-sig", newline="") as file:
        items = [as_item(row, chosen.catalogue.parent) for row in csv.DictReader(file)]
    answer = httpx.post(
        f"{chosen.url}/v1/classify/batch", json={"items": items, "top_k": 1}, timeout=30, trust_env=False
    )
    for item in answer.raise_for_status().json()["items"]:
        print(item["id"], verdict(item))


if __name__ == "__main__":
    main()
