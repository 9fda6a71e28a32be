"""A long table scored over HTTP: batches, a few at a time, and patience when the service says 429 or 503.

    make serve
    python examples/bulk_scores.py examples/manifest.csv scores.csv

Where the bundle is at hand, `polymodal score` does this without a service.
"""

import argparse
import asyncio
import base64
import csv
from pathlib import Path
from typing import Any

import httpx

ITEMS = 16
"""Of one request; at most 64 by default."""
AT_ONCE = 4
"""Requests under way; more than a worker or two for each core only wait."""
BUSY = (429, 503)
TRIES = 8


def as_item(number: int, row: dict[str, str], folder: Path) -> dict[str, str]:
    """A row as the service wants it; what is empty is left out."""
    item = {"id": str(number)}
    if row.get("text"):
        item["text"] = row["text"]
    if row.get("image"):
        item["image"] = base64.b64encode((folder / row["image"]).read_bytes()).decode()
    return item


async def classify(client: httpx.AsyncClient, items: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The result of each item; what the service is too busy for is asked again after as many seconds as it says."""
    results: dict[str, dict[str, Any]] = {}
    for _ in range(TRIES):
        answer = await client.post(
            "/v1/classify/batch", json={"items": [item for item in items if item["id"] not in results]}
        )
        if answer.status_code not in BUSY:
            told = answer.raise_for_status().json()["items"]
            results |= {result["id"]: result for result in told if result["status"] not in BUSY}
        if len(results) == len(items):
            return [results[item["id"]] for item in items]
        await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
    raise SystemExit(f"the service was too busy {TRIES} times")


async def score(rows: list[dict[str, str]], folder: Path, url: str) -> list[dict[str, Any]]:
    """Every row's result, in the table's order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def part(begin: int) -> list[dict[str, Any]]:
        async with gate:
            chosen = enumerate(rows[begin : begin + ITEMS], begin + 1)
            return await classify(client, [as_item(number, row, folder) for number, row in chosen])

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        parts = await asyncio.gather(*map(part, range(0, len(rows), ITEMS)))
    return [result for results in parts for result in results]


async def main() -> None:
    """CSV in, CSV out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("table", type=Path, help="CSV with image,text; pictures lie beside it")
    options.add_argument("out", type=Path)
    options.add_argument("--url", default="http://127.0.0.1:8000")
    chosen = options.parse_args()
    with chosen.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with chosen.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "score", "error"])
        for result in await score(rows, chosen.table.parent, chosen.url):
            if result["status"] == 200:
                best = result["classification"]["labels"][0]
                writer.writerow([result["id"], best["label"], best["score"], ""])
            else:
                writer.writerow([result["id"], "", "", result["problem"]["detail"]])
    print(f"{chosen.out}: {len(rows)} rows")


if __name__ == "__main__":
    asyncio.run(main())
