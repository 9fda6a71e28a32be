"""Train a bundle from a manifest: prepare, fit, calibrate, measure, export and write."""

import base64
import hashlib
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from polymodal.model.bundle import (
    Bundle,
    check_replaceable,
    compress_weights,
    decompress_weights,
    read_bundle,
    write_bundle,
)
from polymodal.model.calibration import calibration_sources
from polymodal.model.config import BundleConfig, Name, NetworkConfig
from polymodal.model.errors import ModelError
from polymodal.model.evaluation import plots
from polymodal.model.fusion import FUSIONS
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import Manifest, Row
from polymodal.model.modalities import MODALITIES, Input
from polymodal.model.network import MultimodalClassifier, build_network
from polymodal.model.progress import console, warn
from polymodal.model.runtimes import start_runtime, suitable
from polymodal.model.runtimes.torch_runtime import TorchRuntime
from polymodal.model.targets import DEFAULT_TARGET, TARGETS, target_name
from polymodal.model.targets.weights import class_weights
from polymodal.model.training import evaluate
from polymodal.model.training.align import add_heads
from polymodal.model.training.card import write_card
from polymodal.model.training.checks import check_examples, read_checked
from polymodal.model.training.curves import Curves
from polymodal.model.training.evaluate import Answers
from polymodal.model.training.examples import Examples, input_fingerprint, prepare_examples
from polymodal.model.training.export import export_graphs, load_verified
from polymodal.model.training.fit import Progress, Validate, choose_device, fit, use_available_cores
from polymodal.model.training.int8 import quantise
from polymodal.model.training.pairs import prepare_pairs
from polymodal.model.training.presets import PRESETS, Recipe, TrainingConfig, aligns
from polymodal.model.training.splits import describe_split, write_split

COUNTER: Final = "num_batches_tracked"  # of batch normalisation: no weight, and torch adds it when it is absent
GOLDEN_BYTES: Final = 12_000
"""Most bytes of a golden input; a larger file becomes a thumbnail, and is used only if there is no smaller file."""
GOLDEN_SIDE: Final = 96
"""Pixels of such a thumbnail, which has about 2 kB."""
GOLDEN_LABELS: Final = 5  # most golden inputs for each set of modalities, of different labels
LOGIT_TOLERANCE: Final = 0.01
"""Largest deviation of the written bundle's logits from the trained network's; torch and ONNX Runtime differ by about 1e-5."""


def train(
    source: Path,
    out: Path,
    *,
    preset: str = "pretrained",
    target: str = DEFAULT_TARGET,
    name: str | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int = 2,
    cache: Path,
    measure_test: bool = True,
    split_seed: int = 0,
    tensorboard: bool = False,
    int8: bool = True,
    changes: Mapping[str, Any] | None = None,
    roots: Sequence[Path] = (),
    pairs: Path | None = None,
) -> Network:
    """Train on the manifest at `source`, write the bundle `out` and return it loaded; work in progress is in `out` + ".run".

    `target` defines the label cells. `changes` replaces hyper-parameters of the preset by name, "fusion", and "encoders" by
    modality; "freeze" and "augment" list modalities (or "none") whose encoder is frozen and whose examples are augmented;
    "class_weights" has the strings that `model.targets.weights.class_weights` reads. `split_seed` divides a manifest without
    splits. Files may be below the manifest's folder and below `roots`. With `int8`, encoders that lose next to nothing are
    quantised too. With `align` of the recipe, alignment heads are fitted to the manifest `pairs`, or else to `source`, whose rows
    without a label then serve for these alone. Raises ModelError, and ManifestError with all errors of the data.
    """
    name = model_name(name or out.name)
    check_replaceable(out)
    use_available_cores()
    changes = changes or {}
    device = choose_device(device, changes.get("precision", TrainingConfig().precision))
    work = _work_folder(out)
    curves = Curves(work / "tensorboard") if tensorboard else None
    unlabelled = aligns(preset, changes.get("align"))
    manifest, warnings = read_checked(source, target_name(target), split_seed, workers, roots, unlabelled)
    recipe = _recipe(manifest, preset, cache, changes)
    work.mkdir(parents=True, exist_ok=True)
    write_split(work / "split.csv", manifest.rows)
    inputs = input_fingerprint(recipe.inputs)
    examples = prepare_examples(manifest, recipe.inputs, inputs, work / "examples", workers=workers)
    warnings = (*warnings, *check_examples(examples, manifest.target))
    warn(warnings)
    prepared = None
    if recipe.training.align:
        folder = work / "pairs"
        prepared = prepare_pairs(
            pairs or source, recipe.inputs, folder, roots=roots, split_seed=split_seed, workers=workers
        )
    torch.manual_seed(recipe.training.seed)
    network = initial_network(recipe)
    fitted = replace(recipe.training, align=False)  # alignment comes after what a checkpoint has
    fingerprint = _fingerprint(manifest.digest, inputs, recipe.network.model_dump(mode="json"), asdict(fitted))
    try:
        progress = fit(
            network,
            examples,
            recipe.training,
            validator(examples, recipe.network),
            checkpoint=work / "checkpoint.pt",
            fingerprint=fingerprint,
            resume=resume,
            device=device,
            workers=workers,
            curves=curves,
            metric=TARGETS[target].scoring.watched,
        )
    except KeyboardInterrupt:
        console.print(f"stopped; {work} holds everything up to the last whole epoch, and --resume goes on from there")
        raise
    finally:
        if curves:
            curves.close()
    console.print(
        f"best epoch {progress.best_epoch}: mean validation {TARGETS[target].scoring.watched} {progress.best_score:.4f}"
    )
    if prepared is None:
        return _finish(manifest, warnings, recipe, examples, network, progress, out, name, preset, measure_test, int8)
    # The alignment quantises the encoders, with their heads.
    _finish(manifest, warnings, recipe, examples, network, progress, out, name, preset, measure_test, int8=False)
    needed = examples if int8 else None
    return add_heads(
        read_bundle(out), prepared, out, examples=needed, seed=recipe.training.seed, measure_test=measure_test
    )


def model_name(name: str) -> str:
    """Return the name if it is valid. Raises ModelError."""
    try:
        return TypeAdapter(Name).validate_python(name)
    except ValidationError as problem:
        allowed = "lower-case letters, digits, '.', '_' and '-', at most 64; give another with --name"
        raise ModelError(f"name: {name!r}; allowed: {allowed}") from problem


def _recipe(manifest: Manifest, preset: str, cache: Path, changes: Mapping[str, Any]) -> Recipe:
    if preset not in PRESETS:
        raise ModelError(f"preset {preset!r} is not known; known are {', '.join(PRESETS)}")
    recipe = PRESETS[preset](manifest, cache, changes.get("encoders", {}))
    for modality in changes.get("encoders", {}):
        if modality not in recipe.network.order:
            raise ModelError(
                f"{modality} encoder: no training row has one; the data have {' and '.join(recipe.network.order)}"
            )
    if (fusion := changes.get("fusion", recipe.network.fusion)) not in FUSIONS:
        raise ModelError(f"fusion {fusion!r} is not known; known are {', '.join(FUSIONS)}")
    hyper = {**TARGETS[manifest.target].cells.hyperparameters, **changes}
    for key in ("fusion", "encoders", "freeze"):
        hyper.pop(key, None)
    if "freeze" in changes:
        names = _modalities(recipe, "freeze", changes["freeze"])
        hyper["frozen"] = (*recipe.training.frozen, *(f"encoders.{name}." for name in names)) if names else ()
    if "augment" in changes:
        hyper["augment"] = _modalities(recipe, "augment", changes["augment"])
    if "class_weights" in hyper:
        cells = manifest.cells("train")
        hyper["class_weights"] = class_weights(hyper["class_weights"], manifest.target, cells, manifest.labels)
    network = recipe.network.model_copy(update={"fusion": fusion})
    return replace(recipe, network=network, training=replace(recipe.training, **hyper))


def _modalities(recipe: Recipe, option: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities that an option names, without repetitions; () for "none". Raises ModelError."""
    allowed = (*recipe.network.order, "none")
    if unknown := [name for name in names if name not in allowed]:
        raise ModelError(f"{option} {', '.join(unknown)}: not known; known are {', '.join(allowed)}")
    if "none" in names and set(names) != {"none"}:
        raise ModelError(f"{option} {', '.join(names)}: none excludes the others")
    return tuple(name for name in dict.fromkeys(names) if name != "none")


def initial_network(recipe: Recipe) -> MultimodalClassifier:
    """Return the recipe's network with its trained initial weights, the others random.

    Raises ModelError if the network lacks a trained weight, or if a frozen weight would stay random.
    """
    network = build_network(recipe.network)
    weights = {name: torch.from_numpy(array.copy()) for name, array in recipe.weights.items()}
    loaded = network.load_state_dict(weights, strict=False)
    if loaded.unexpected_keys:
        raise ModelError(f"no place in the network for the trained weights {', '.join(loaded.unexpected_keys)}")
    untrained = [key for key in loaded.missing_keys if recipe.training.freezes(key) and not key.endswith(COUNTER)]
    if untrained:
        modality = untrained[0].split(".")[1]
        encoder = recipe.network.modalities[modality].encoder.name
        raise ModelError(
            f"freeze {modality}: no trained weights for {len(untrained)} weights of the encoder {encoder!r}, such as "
            f"{untrained[0]}; allowed: an encoder that begins with trained weights"
        )
    return network


def validator(examples: Examples, config: NetworkConfig) -> Validate:
    """Return a function that measures a network of this config on the validation split, by set of modalities."""
    rows = examples.split("validation")

    def validate(network: MultimodalClassifier) -> dict[str, float]:
        runtime = TorchRuntime(network, next(network.parameters()).device)
        return evaluate.monitor(evaluate.predict(runtime, examples, rows, config), examples, config.target)

    return validate


def _finish(
    manifest: Manifest,
    warnings: tuple[str, ...],
    recipe: Recipe,
    examples: Examples,
    network: MultimodalClassifier,
    progress: Progress,
    out: Path,
    name: str,
    preset: str,
    measure_test: bool,
    int8: bool,
) -> Network:
    """Calibrate and measure the best weights, rounded as bundles store them, and write the bundle."""
    stored = compress_weights(
        {key: entry.numpy() for key, entry in progress.best_weights.items() if not key.endswith(COUNTER)}
    )
    network.load_state_dict({key: torch.from_numpy(array) for key, array in decompress_weights(stored).items()})
    runtime = TorchRuntime(network, next(network.parameters()).device)
    console.print("calibrating and measuring …")
    answers = {
        split: evaluate.predict(runtime, examples, examples.split(split), recipe.network)
        for split in ("validation", *(["test", "unseen"] if measure_test else []))
        if examples.split(split)
    }
    calibration = evaluate.calibrate(answers["validation"], examples, recipe.network)
    config = BundleConfig(name=name, network=recipe.network, **calibration)
    report = {
        "preset": preset,
        "data": _describe_data(manifest),
        "warnings": list(warnings),
        "code": _describe_code(),
        "training": {
            **asdict(recipe.training),
            "best_epoch": progress.best_epoch,
            "epochs_run": progress.epoch,
            "history": progress.history,
        },
        "calibration": calibration_sources(config, answers["validation"]),
        "metrics": {split: evaluate.report(entry, config, examples) for split, entry in answers.items()},
    }
    console.print("exporting …")
    graphs = export_graphs(network, recipe.inputs, recipe.network.width)
    golden = _golden(config, TorchRuntime(network, torch.device("cpu")), examples)
    if int8 and graphs:
        splits = [split for split in answers if split != "validation"]
        threads = torch.get_num_threads()
        quantised = quantise(network, config, stored, graphs, examples, splits=splits, threads=threads)
        golden = quantised.replayed(golden, _unwritten(config, recipe.inputs))
        graphs |= quantised.graphs
        report["int8"] = quantised.report
    _draw(_work_folder(out) / "plots", progress, answers["validation"], config, examples)

    def verify(written: Path) -> None:
        bundle = read_bundle(written)
        float32 = suitable(bundle)[-1]
        served = start_runtime(float32, bundle, threads=torch.get_num_threads())
        rows = examples.split("validation")
        _check_agreement(out, answers["validation"], evaluate.predict(served, examples, rows, recipe.network))
        load_verified(written)

    write_bundle(
        out,
        config=config,
        inputs=recipe.inputs,
        weights=stored,
        graphs=graphs,
        report=report,
        golden=golden,
        card=write_card(config, report, recipe.origins),
        verify=verify,
    )
    return load_verified(out)


def _work_folder(out: Path) -> Path:
    """Return the folder of work in progress."""
    return out.with_name(out.name + ".run")


def _draw(
    folder: Path, progress: Progress, validation: Mapping[str, Answers], config: BundleConfig, examples: Examples
) -> None:
    """Draw learning curves, and predictions for the validation split."""
    target = TARGETS[config.network.target].scoring.of(config)
    figures = {"learning-curves": plots.learning_curves(progress.history, progress.best_epoch, target.watched)}
    for key, entry in validation.items():
        scores, targets = target.scores(entry.logits, entry.used), examples.targets[entry.rows]
        drawn = plots.answer_figures(config.network.target, target, scores, targets)
        figures |= {f"{kind}-{key}": figure for kind, figure in drawn.items()}
    plots.save(figures, folder)


def _check_agreement(out: Path, trained: Mapping[str, Answers], served: Mapping[str, Answers]) -> None:
    """Raise ModelError if the written bundle's logits on the validation split differ from the trained network's."""
    deviation = float(np.max([np.abs(entry.logits - served[key].logits).max() for key, entry in trained.items()]))
    if not deviation <= LOGIT_TOLERANCE:  # written so that NaN fails too
        raise ModelError(
            f"{out}: logits were {deviation:.3g} away from the trained network's; allowed: {LOGIT_TOLERANCE}"
        )


def _golden(config: BundleConfig, runtime: TorchRuntime, examples: Examples) -> list[dict[str, Any]]:
    """Return validation rows of different label cells, preferably small ones, for each set of modalities, with predictions."""
    predictor = Network(_unwritten(config, examples.inputs), runtime)
    golden = []
    validation = examples.split("validation")
    for key in evaluate.measured_sets(examples, validation, config.network.order):
        names = key.split("+")
        rows = [
            examples.rows[number] for number in validation if all(examples.stores[name].has(number) for name in names)
        ]
        small = [row for row in rows if all(_file_bytes(row.inputs[name]) <= GOLDEN_BYTES for name in names)]
        chosen: dict[str, Row] = {}
        for row in small or rows:
            chosen.setdefault(row.label, row)
        for row in list(chosen.values())[:GOLDEN_LABELS]:
            entry: dict[str, Any] = {"parts": {name: _golden_input(name, row.inputs[name]) for name in names}}
            golden.append({**entry, **predictor.target.golden(predictor.predict_golden(entry))})
    return golden


def _unwritten(config: BundleConfig, inputs: Mapping[str, Input]) -> Bundle:
    """Return a bundle that is not on the disk, with all that a Network needs."""
    return Bundle(Path(), config, digest="", inputs=inputs, report={}, golden=(), card="")


def _file_bytes(value: Path | str) -> int:
    return value.stat().st_size if isinstance(value, Path) else 0


def _golden_input(modality: str, value: Path | str) -> str:
    """Return a text unchanged; of a file the base64, or that of its thumbnail if the file is large and has one."""
    if isinstance(value, str):
        return value
    content = value.read_bytes()
    thumbnails = MODALITIES[modality].optional_module("thumbnail")
    if len(content) > GOLDEN_BYTES and thumbnails:
        content = thumbnails.thumbnail(content, GOLDEN_SIDE)
    return base64.b64encode(content).decode()


def _describe_data(manifest: Manifest) -> dict[str, Any]:
    """Return digest, counts by split, source and licence, and the splits."""
    counts: dict[str, Counter[str]] = {}
    for row in manifest.rows:
        key = f"{row.source or 'unnamed'} ({row.licence or 'licence not stated'})"
        counts.setdefault(row.split, Counter())[key] += 1
    return {"digest": manifest.digest, "items": counts, "split": describe_split(manifest)}


def _describe_code() -> dict[str, str]:
    """Return the revision of this code, and the versions of Python and of packages."""
    packages = ("polymodal", "torch", "numpy", "pillow", "tokenizers", "onnx")
    return {
        "revision": _revision(),
        "python": platform.python_version(),
        **{package: metadata.version(package).partition("+")[0] for package in packages},
    }


def _revision() -> str:
    """Return the git commit of this code, marked if there are changes; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _fingerprint(*values: Any) -> str:  # noqa: ANN401 — anything JSON-ready
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
