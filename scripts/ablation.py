"""Compare fusions and presets on the validation split with several seeds; write the table of docs/training.md.

    python scripts/ablation.py DATA [--out FOLDER] [--cache FOLDER] [--seeds 3] [--only NAME …] [--table docs/training.md]

Fusions are compared on features of the preset's encoders without fine-tuning: the features are computed once, so that a run
takes a minute. Presets, and networks for one modality, are trained completely. Every run writes its result to FOLDER and is not
repeated; the test split is never read.
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
from polymodal.model.training.presets import PRESETS, Recipe, aligns
from polymodal.model.training.train import initial_network, validator
from polymodal.model.types import Array

BEGIN, END = "<!-- ablation: made by make ablation -->", "<!-- end of ablation -->"
BATCH: Final = 64
FUSION_EPOCHS: Final = 8

Scores = dict[str, float]


class Features(nn.Module):
    """The projection of an encoder, for precomputed features."""

    def __init__(self, project: nn.Module) -> None:
        super().__init__()
        self.project = project

    def forward(self, features: Tensor) -> Tensor:
        """Project features (B, F) to embeddings (B, D)."""
        embeddings: Tensor = self.project(features)
        return embeddings


class FeatureStore:
    """Features by row, in place of the prepared arrays of Examples."""

    def __init__(self, rows: Mapping[int, Array]) -> None:
        self._rows = rows

    def __getitem__(self, row: int) -> Array:
        return self._rows[row]

    def has(self, row: int) -> bool:
        """Whether that row has this modality."""
        return row in self._rows


class FeatureInput:
    """Collates features, in place of an Input of Examples."""

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Return features (B, F)."""
        return {"features": np.stack(arrays)}


class FusionRuns:
    """Trains the projections, a fusion and the heads on the encoders' features."""

    def __init__(self, data: Path, cache: Path, work: Path) -> None:
        manifest = read_manifest(data)
        self._recipe = PRESETS["pretrained"](manifest, cache, {})
        self._work = work
        prepared = examples_of(manifest, self._recipe, work / "examples")
        network = initial_network(self._recipe)
        features = {name: _features(network, prepared, name) for name in self._recipe.network.order}
        collating: Any = {name: FeatureInput() for name in features}
        stores: Any = {name: FeatureStore(rows) for name, rows in features.items()}
        self._examples = Examples(prepared.rows, prepared.labels, collating, stores, prepared.targets)

    def run(self, fusion: str, seed: int) -> Scores:
        """Return the validation accuracy by set of modalities."""
        config = self._recipe.network.model_copy(update={"fusion": fusion})
        training = replace(self._recipe.training, epochs=FUSION_EPOCHS, augment=(), retained=0.0)
        recipe = replace(self._recipe, network=config, training=training)
        return train_and_measure(recipe, self._examples, self._work, seed, over_features=True)


def examples_of(manifest: Manifest, recipe: Recipe, folder: Path) -> Examples:
    """Prepare every row by the recipe's inputs, unless the folder has them already."""
    return prepare_examples(manifest, recipe.inputs, input_fingerprint(recipe.inputs), folder, workers=2)


def train_and_measure(
    recipe: Recipe, examples: Examples, work: Path, seed: int, *, over_features: bool = False
) -> Scores:
    """Train a network; return the last epoch's validation accuracy by set of modalities.

    The last epoch and not the best one, which would be selected on the split that it is measured on. With `over_features` the
    examples are features of the encoders, and only the rest of the network is trained.
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
    """Return the input of the projection of a modality's encoder, by row."""
    encoder = network.encoders[name].eval()
    encoder.project = nn.Identity()
    splits = ("train", "validation")
    rows = [row for split in splits for row in examples.split(split) if examples.stores[name].has(row)]
    features: dict[int, Array] = {}
    with bar() as progress:
        task = progress.add_task(f"features of {name}", total=len(rows), unit="rows")
        for start in range(0, len(rows), BATCH):
            chunk = rows[start : start + BATCH]
            batch = {key: torch.from_numpy(array) for key, array in examples.collate(name, chunk).items()}
            features.update(zip(chunk, encoder(**batch).numpy(), strict=True))
            progress.advance(task, len(chunk))
    return features


def preset_run(data: Path, cache: Path, work: Path, preset: str, seed: int) -> Scores:
    """Return the validation accuracy of a completely trained network."""
    manifest = read_manifest(data)
    recipe = PRESETS[preset](manifest, cache, {})
    return train_and_measure(recipe, examples_of(manifest, recipe, work / preset), work, seed)


def alone_run(data: Path, cache: Path, work: Path, kept: str, seed: int) -> Scores:
    """Return the validation accuracy of a network that was trained with one modality."""
    manifest = read_manifest(data)
    rows = [replace(row, inputs={kept: row.inputs[kept]}) for row in manifest.rows if kept in row.inputs]
    # In the folder of the images, with a unique name, because another run may do the same.
    with tempfile.NamedTemporaryFile(dir=manifest.root, prefix=f"{kept}-alone-", suffix=".csv") as file:
        write_manifest(Path(file.name), rows)
        return preset_run(Path(file.name), cache, work / kept, "pretrained", seed)


def plan(data: Path, cache: Path, out: Path) -> Iterable[tuple[str, Callable[[int], Scores]]]:
    """Yield the rows of the table, each with the function that measures it for a seed."""
    runs: list[FusionRuns] = []

    def fusion_run(fusion: str, seed: int) -> Scores:
        if not runs:
            runs.append(FusionRuns(data, cache, out))
        return runs[0].run(fusion, seed)

    for fusion in FUSIONS:
        yield f"fusion {fusion}", lambda seed, fusion=fusion: fusion_run(fusion, seed)  # type: ignore[misc]
    for preset in (name for name in PRESETS if not aligns(name, None)):  # those train as others do
        yield f"preset {preset}", lambda seed, preset=preset: preset_run(data, cache, out, preset, seed)  # type: ignore[misc]
    for kept in ("image", "text"):
        yield (
            f"preset pretrained, {kept} alone",
            lambda seed, kept=kept: alone_run(data, cache, out, kept, seed),  # type: ignore[misc]
        )


def table(results: Mapping[str, Sequence[Scores]]) -> str:
    """Return Markdown: mean ± standard deviation over the seeds."""
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
    """Run everything that has no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--cache", type=Path, default=Path("data/cache/pretrained"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="*", default=[], help="Only rows of the table whose names begin with this, e.g. 'fusion'."
    )
    parser.add_argument("--table", type=Path, help="Markdown file whose table between the marks is replaced.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Scores]] = {}
    for name, measure in plan(options.data, options.cache, options.out):
        for seed in range(options.seeds):
            file = options.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
            if not file.exists():
                if options.only and not name.startswith(tuple(options.only)):
                    continue
                console.print(f"{name}, seed {seed}")
                file.write_text(json.dumps(measure(seed)), encoding="utf-8")
            results.setdefault(name, []).append(json.loads(file.read_bytes()))
    text = table(results)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.table:
        before, rest = options.table.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        options.table.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
