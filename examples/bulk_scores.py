"""A long table scored over HTTP with the Python client: batches, a few at a time, and patience when the service is busy.

    make serve
    python examples/bulk_scores.py examples/manifest.csv scores.csv

Where the bundle is at hand, `polymodal score` does this without a service.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from polymodal_client import Client, Item


def items_of(rows: Iterable[dict[str, str]], folder: Path) -> Iterator[Item]:
    """A row as the service wants it; what is empty is left out."""
    for number, row in enumerate(rows, 1):
        picture = row.get("image")
        yield Item(image=folder / picture if picture else None, text=row.get("text") or None, id=str(number))


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; label and error are not the table's own words."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def main() -> None:
    """CSV in, CSV out; both are read and written row by row, pictures as they are sent."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("table", type=Path, help="CSV with image,text; pictures lie beside it")
    options.add_argument("out", type=Path)
    options.add_argument("--url", default="http://127.0.0.1:8000")
    chosen = options.parse_args()
    with chosen.table.open(encoding="utf-8-sig", newline="") as file, Client(chosen.url, timeout=60) as client:
        answers = client.classify_batch(items_of(csv.DictReader(file), chosen.table.parent), top_k=1)
    with chosen.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "score", "error"])
        for answer in answers:
            if answer.error:
                writer.writerow([answer.id, "", "", harmless(str(answer.error))])
            else:
                best = answer.result().best
                writer.writerow([answer.id, harmless(best.label), best.score, ""])
    print(f"{chosen.out}: {len(answers)} rows")


if __name__ == "__main__":
    main()
