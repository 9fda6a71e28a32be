"""A data set that is drawn in a moment and the bundle trained on it: the whole path, small and real, on one core."""

import csv
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageDraw

from tests.bundle_files import write_aligned

WORDS = {
    "sea": ("blue", "deep water", "waves at the coast", "a boat on water"),
    "tomato": ("red", "ripe fruit", "a salad with fruit", "juice of ripe fruit"),
}
COLOURS = {"sea": "blue", "tomato": "red"}
SPLITS = (("train", 12), ("validation", 6), ("test", 6))  # rows of each label
SLOW = (
    "tests/app/api/test_contract.py",
    "tests/app/test_streams.py",
    "tests/deploy/",
    "tests/model/evaluation/test_plots.py",
    "tests/model/training/test_align.py",
    "tests/model/training/test_dual_encoders.py",
    "tests/model/training/test_export.py",
    "tests/model/training/test_fit.py",
    "tests/model/training/test_hub.py",
    "tests/model/training/test_int8.py",
    "tests/model/training/test_memory.py",
    "tests/model/training/test_quantise.py",
    "tests/model/training/test_repack.py",
    "tests/model/training/test_sources.py",
    "tests/model/training/test_toy_modality.py",
    "tests/model/training/test_train.py",
    "tests/test_ablation.py",
    "tests/test_examples.py",
    "tests/test_sounds.py",
    "tests/test_tables.py",
    "tests/test_target_journeys.py",
)
"""End-to-end tests that only `make test-all` runs, in addition to single ones that are marked as slow."""
COLUMNS = ("id", "image", "text", "label", "group", "split", "source", "licence")


def _draw(label: str, chance: np.random.Generator) -> Image.Image:
    """A red circle or a blue square, somewhere on white."""
    image = Image.new("RGB", (40, 36), "white")
    left, top, side = chance.integers((2, 2, 12), (12, 10, 22)).tolist()
    shape = ImageDraw.Draw(image).ellipse if label == "tomato" else ImageDraw.Draw(image).rectangle
    shape((left, top, left + side, top + side), fill=COLOURS[label])
    return image


def _rows(folder: Path) -> list[dict[str, str]]:
    """Of three rows one has both, one lacks its text and one its image; two neighbours form a group."""
    chance = np.random.default_rng(7)
    rows = []
    for split, count in SPLITS:
        for label in sorted(WORDS):
            for number in range(count):
                name = f"{split}-{label}-{number}"
                row = {"id": name, "label": label, "split": split, "licence": "CC0-1.0"}
                row |= {"group": f"{split}-{label}-{number // 2}", "source": "drawn" if number % 2 else "painted"}
                if number % 3 != 2:
                    row["image"] = f"images/{name}.png"
                    _draw(label, chance).save(folder / row["image"])
                if number % 3 != 1:
                    row["text"] = f"{WORDS[label][number % 4]}, {COLOURS[label]}"
                rows.append(row)
    return rows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A bundle started with torch takes all cores for the whole process; small networks are slower on many than on one."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)` returns a folder that `make(folder)` has filled, once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not (folder / "made").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (folder / "made").touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def manifest_folder(made_once) -> Path:
    """A folder with `manifest.csv` and images/: 48 rows, two labels, three splits."""

    def make(folder: Path) -> None:
        (folder / "images").mkdir()
        rows = _rows(folder)
        with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    return made_once("shapes", make)


@pytest.fixture(scope="session")
def tiny_bundle(manifest_folder, made_once) -> Path:
    """A bundle trained on `manifest_folder`; read it, don't change it."""

    def make(folder: Path) -> None:
        import torch

        from polymodal.model.training import train

        torch.set_num_threads(1)
        changes = {"epochs": 6, "batch_size": 8, "seed": 0}
        train(
            manifest_folder,
            folder / "shapes",
            preset="cnn-rnn",
            device="cpu",
            workers=1,
            cache=folder,
            changes=changes,
        )

    return made_once("bundles", make) / "shapes"


@pytest.fixture(scope="session")
def aligned_bundle(tiny_bundle, made_once) -> Path:
    """The tiny bundle with alignment heads of random weights, whose vectors have 16 numbers; read it, don't change it."""
    return made_once("aligned", lambda folder: write_aligned(tiny_bundle, folder / "shapes")) / "shapes"


@pytest.fixture(scope="session", params=["clip", "siglip"])
def dual_encoder(request, made_once) -> tuple[Path, Path]:
    """The folder of a tiny dual encoder with random weights, and the bundle that was imported from it; read them only."""

    def make(folder: Path) -> None:
        from tests.command_line import polymodal
        from tests.dual_encoders import WRITERS

        model = WRITERS[request.param](folder / "model")
        result = polymodal("import", model, "--out", folder / "tiny", "--cache", folder, "--json")
        assert result.exit_code == 0, result.output
        (folder / "printed.json").write_text(result.stdout, encoding="utf-8")

    folder = made_once(request.param, make)
    return folder / "model", folder / "tiny"


@pytest.fixture
def bundle_copy(tiny_bundle, tmp_path) -> Path:
    """A bundle that may be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def raw_server():
    """`with raw_server(talk) as url`: each connection that sends something is passed to `talk(connection, over)`, in a thread."""

    @contextmanager
    def serve(talk):
        over = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    try:
                        connection.recv(65536)
                        talk(connection, over)
                    except OSError:  # the client has gone, as it should
                        continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join(10)
            listener.close()
            assert not thread.is_alive()

    return serve
