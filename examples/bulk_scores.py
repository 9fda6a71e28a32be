"""Score a long table over HTTP with the Python client: a few batches at a time, with retries when the service is busy.

    make serve
    python examples/bulk_scores.py examples/manifest.csv scores.csv

If you have the bundle, `polymodal score` does the same without a service.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from polymodal_client import Client, Item


def items_of(rows: Iterable[dict[str, str]], folder: Path) -> Iterator[Item]:
    """Convert rows to items of a batch request, without empty cells."""
    for number, row in enumerate(rows, 1):
        image = row.get("image")
        yield Item(image=folder / image if image else None, text=row.get("text") or None, id=str(number))


def escape_formula(text: str) -> str:
    """Escape a cell that a spreadsheet would read as a formula, because labels and errors come from the service."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def main() -> None:
    """Read a CSV and write a CSV, row by row; an image is read when it is sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="CSV with image,text; image paths are relative to its folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    with options.table.open(encoding="utf-8-sig", newline="") as file, Client(options.url, timeout=60) as client:
        answers = client.classify_batch(items_of(csv.DictReader(file), options.table.parent), top_k=1)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "score", "error"])
        for answer in answers:
            if answer.error:
                writer.writerow([answer.id, "", "", escape_formula(str(answer.error))])
            else:
                best = answer.result().best
                writer.writerow([answer.id, escape_formula(best.label), best.score, ""])
    print(f"{options.out}: {len(answers)} rows")


if __name__ == "__main__":
    main()
