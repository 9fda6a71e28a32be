"""Find images by words: an index of a folder's images, a service that searches it, and a few queries.

python examples/search.py
"""

import argparse
import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

from polymodal_client import Client, Retries

POLYMODAL = str(Path(sys.executable).with_name("polymodal"))
QUERIES = ("a small boat", "fruit", "a wild animal")


def write_table(images: Path, table: Path) -> None:
    """Write a manifest with the images of a folder, without any words: id,image."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image"])
        writer.writerows([path.stem, path.absolute()] for path in sorted(images.glob("*.png")))


def search(url: str, queries: list[str], image: Path) -> None:
    """Print the best images for words, and the images that resemble another one."""
    with Client(url, retries=Retries(attempts=100, first_wait_s=0.2, longest_wait_s=0.5), timeout=60) as client:
        for query in queries:
            answer = client.search(text=query, top_k=3)
            print(f"{query}: {', '.join(f'{hit.id} {hit.cosine:.2f}' for hit in answer.hits)}")
        answer = client.search(image, top_k=2)
        print(f"{image.name}: {', '.join(f'{hit.id} {hit.cosine:.2f}' for hit in answer.hits)}")


def main() -> None:
    """Build the index, start the service, search, and stop the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", default=QUERIES, help="words")
    parser.add_argument("--images", type=Path, default=Path(__file__).parent, help="folder of PNG files")
    parser.add_argument("--bundle", default="illustrations")
    parser.add_argument("--out", type=Path, default=Path("build/search"), help="folder for the table and the index")
    options = parser.parse_args()
    table, index = options.out / "images.csv", options.out / "index"
    write_table(options.images, table)
    build = [POLYMODAL, "index", "build", table, "--out", index, "--bundle", options.bundle]
    subprocess.run([*build, "--root", options.images, "--restart"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"BUNDLES": options.bundle, "INDEXES": f"images={index}", "PORT": port, "LOG_LEVEL": "warning"}
    environment = os.environ | {f"POLYMODAL_{name}": str(value) for name, value in settings.items()}
    service = subprocess.Popen([POLYMODAL, "serve"], env=environment)
    try:
        search(f"http://127.0.0.1:{port}", list(options.queries), options.images / "boat.png")
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main()
