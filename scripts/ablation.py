"""What each fusion and each preset is worth: several seeds, on the validation part, into the table of docs/training.md.

    python scripts/ablation.py DATA [--out FOLDER] [--cache FOLDER] [--seeds 3] [--only NAME …] [--table docs/training.md]

Fusions are compared over the features of the preset's encoders as they were before any fine-tuning: these are computed once,
and a run then takes a minute instead of many. Presets, and networks for one modality alone, are trained whole. Every run leaves
its result in FOLDER and is not repeated; the test part is never read.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from polymodal.model.config import subsets
from polymodal.model.fusion import FUSIONS
from polymodal.model.manifest import Manifest, read_manifest, write_manifest
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import bar, console
from polymodal.model.training.examples import Examples, input_fingerprint, prepare_examples
from polymodal.model.training.fit import fit
from polymodal.model.training.presets import PRESETS, Recipe
from polymodal.model.training.train import initial_network, validator
from polymodal.model.types import Array

BEGIN, END = "<!-- ablation: made by make ablation -->", "<!-- end of ablation -->"
BATCH: Final = 64
FUSION_EPOCHS: Final = 8

Scores = dict[str, float]


class Features(nn.Module):
    """What is left of an encoder whose features are known: its projection."""

    def __init__(self, project: nn.Module) -> None:
        super().__init__()
        self.project = project

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) to embeddings (B, D)."""
        embeddings: Tensor = self.project(features)
        return embeddings


class FeatureStore:
    """Features by row, where Examples expects prepared arrays."""

    def __init__(self, rows: Mapping[int, Array]) -> None:
        self._rows = rows

    def __getitem__(self, row: int) -> Array:
        return self._rows[row]

    def has(self, row: int) -> bool:
        """Whether that row has this modality."""
        return row in self._rows


class FeatureInput:
    """Collates features, where Examples expects an Input."""

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Features (B, F)."""
        return {"features": np.stack(arrays)}


class FusionRuns:
    """Trains everything behind the encoders' features, with any fusion."""

    def __init__(self, data: Path, cache: Path, work: Path) -> None:
        manifest = read_manifest(data)
        self._recipe = PRESETS["pretrained"](manifest, cache, {})
        self._work = work
        prepared = examples_of(manifest, self._recipe, work / "examples")
        network = initial_network(self._recipe)
        parts = {name: _features(network, prepared, name) for name in self._recipe.network.order}
        collating: Any = {name: FeatureInput() for name in parts}
        stores: Any = {name: FeatureStore(rows) for name, rows in parts.items()}
        self._examples = Examples(prepared.rows, prepared.labels, collating, stores, prepared.targets)

    def run(self, fusion: str, seed: int) -> Scores:
        """Validation accuracy by set of modalities."""
        config = self._recipe.network.model_copy(update={"fusion": fusion})
        training = replace(self._recipe.training, epochs=FUSION_EPOCHS, augment=(), retained=0.0)
        recipe = replace(self._recipe, network=config, training=training)
        return measured(recipe, self._examples, self._work, seed, over_features=True)


def examples_of(manifest: Manifest, recipe: Recipe, folder: Path) -> Examples:
    """Every row as the recipe's inputs prepare it, unless the folder holds them already."""
    return prepare_examples(manifest, recipe.inputs, input_fingerprint(recipe.inputs), folder, workers=2)


def measured(recipe: Recipe, examples: Examples, work: Path, seed: int, *, over_features: bool = False) -> Scores:
    """Train a network; the last epoch's validation accuracy by set of modalities, so that none is chosen by what it is measured on.

    With `over_features` the examples hold what the encoders make of the data, and only what comes after them is trained.
    """
    torch.manual_seed(seed)
    network = initial_network(recipe)
    for name, encoder in network.encoders.items() if over_features else ():
        network.encoders[name] = Features(encoder.get_submodule("project"))
    progress = fit(
        network,
        examples,
        replace(recipe.training, patience=recipe.training.epochs, seed=seed),
        validator(examples, recipe.network),
        checkpoint=work / "checkpoint.pt",
        fingerprint="",
        resume=False,
        device="cpu",
    )
    last = progress.history[-1]
    return {key.removeprefix("validation "): value for key, value in last.items() if key.startswith("validation ")}


@torch.no_grad()
def _features(network: MultimodalClassifier, examples: Examples, name: str) -> dict[int, Array]:
    """What the projection of that modality's encoder gets, by row."""
    encoder = network.encoders[name].eval()
    encoder.project = nn.Identity()
    parts = ("train", "validation")
    rows = [row for part in parts for row in examples.split(part) if examples.stores[name].has(row)]
    found: dict[int, Array] = {}
    with bar() as progress:
        task = progress.add_task(f"features of {name}", total=len(rows), unit="rows")
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            batch = {key: torch.from_numpy(array) for key, array in examples.collate(name, some).items()}
            found.update(zip(some, encoder(**batch).numpy(), strict=True))
            progress.advance(task, len(some))
    return found


def preset_run(data: Path, cache: Path, work: Path, preset: str, seed: int) -> Scores:
    """What a network trained whole says of the validation part."""
    manifest = read_manifest(data)
    recipe = PRESETS[preset](manifest, cache, {})
    return measured(recipe, examples_of(manifest, recipe, work / preset), work, seed)


def alone_run(data: Path, cache: Path, work: Path, kept: str, seed: int) -> Scores:
    """What a network that never had the other modality says of the validation part."""
    manifest = read_manifest(data)
    rows = [replace(row, inputs={kept: row.inputs[kept]}) for row in manifest.rows if kept in row.inputs]
    # Beside the pictures, and under a name of its own: another run may be doing the same.
    with tempfile.NamedTemporaryFile(dir=manifest.root, prefix=f"{kept}-alone-", suffix=".csv") as file:
        write_manifest(Path(file.name), rows)
        return preset_run(Path(file.name), cache, work / kept, "pretrained", seed)


def plan(data: Path, cache: Path, out: Path) -> Iterable[tuple[str, Callable[[int], Scores]]]:
    """Every row of the table with what makes it."""
    runs: list[FusionRuns] = []

    def fusion_run(fusion: str, seed: int) -> Scores:
        if not runs:
            runs.append(FusionRuns(data, cache, out))
        return runs[0].run(fusion, seed)

    for fusion in FUSIONS:
        yield f"fusion {fusion}", lambda seed, fusion=fusion: fusion_run(fusion, seed)  # type: ignore[misc]
    for preset in PRESETS:
        yield f"preset {preset}", lambda seed, preset=preset: preset_run(data, cache, out, preset, seed)  # type: ignore[misc]
    for kept in ("image", "text"):
        yield (
            f"preset pretrained, {kept} alone",
            lambda seed, kept=kept: alone_run(data, cache, out, kept, seed),  # type: ignore[misc]
        )


def table(results: Mapping[str, Sequence[Scores]]) -> str:
    """Markdown: mean ± standard deviation over the seeds."""
    keys = subsets(("image", "text"))
    lines = [
        f"| validation accuracy | {' | '.join(key.replace('+', ' + ') for key in keys)} | seeds |",
        "|---|" + "---|" * 4,
    ]
    for name, runs in results.items():
        cells = [_cell([run[key] for run in runs if key in run]) for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Run what has no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--cache", type=Path, default=Path("data/cache/pretrained"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="Rows of the table whose names begin so, e.g. 'fusion'.")
    parser.add_argument("--table", type=Path, help="Markdown file whose table between the marks is replaced.")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Scores]] = {}
    for name, make in plan(chosen.data, chosen.cache, chosen.out):
        for seed in range(chosen.seeds):
            file = chosen.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
            if not file.exists():
                if chosen.only and not name.startswith(tuple(chosen.only)):
                    continue
                console.print(f"{name}, seed {seed}")
                file.write_text(json.dumps(make(seed)), encoding="utf-8")
            results.setdefault(name, []).append(json.loads(file.read_bytes()))
    text = table(results)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if chosen.table:
        before, rest = chosen.table.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        chosen.table.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
