"""Rewrite a bundle with new graphs, optionally in 8 bits, or with metrics that its report lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch

from polymodal.model.bundle import Bundle, check_replaceable, read_bundle, write_bundle
from polymodal.model.errors import ModelError
from polymodal.model.kinds.network import Network
from polymodal.model.manifest import Manifest
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import warn
from polymodal.model.runtimes import Runtime, start_runtime, suitable
from polymodal.model.runtimes.onnx_int8_runtime import NAME
from polymodal.model.runtimes.torch_runtime import load_network
from polymodal.model.training import evaluate
from polymodal.model.training.card import IN_8_BITS, in_8_bits, with_section, without_section
from polymodal.model.training.checks import read_checked
from polymodal.model.training.examples import Examples, input_fingerprint, prepare_examples
from polymodal.model.training.export import export_graphs, load_verified
from polymodal.model.training.fit import use_available_cores
from polymodal.model.training.int8 import quantise
from polymodal.model.training.splits import describe_split
from polymodal.model.types import Array

ADDED: Final = "added"
"""Key of a report for the metrics that `remeasure` added after the training."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Graphs of a network, with what a bundle records about them."""

    graphs: Mapping[str, bytes]
    golden: list[dict[str, Any]]
    report: dict[str, Any]
    card: str
    runtime: Runtime | None
    """Executes the graphs in 8 bits; None without any."""


def export(
    directory: Path,
    out: Path,
    *,
    source: Path | None = None,
    work: Path,
    split_seed: int = 0,
    measure_test: bool = True,
    workers: int = 2,
    roots: Sequence[Path] = (),
) -> Network:
    """Write the bundle at `directory` to `out` with new graphs: in float32, and with the manifest `source` in 8 bits too.

    `source` must be the manifest that the bundle was trained on: its train split gives the ranges of activations, its validation
    split selects the graphs. Prepared rows are kept in `work`. Weights and calibration don't change. Raises ModelError.
    """
    check_replaceable(out)
    use_available_cores()
    bundle = read_bundle(directory)
    examples = trained_examples(bundle, source, work, split_seed, workers, roots) if source else None
    stored = bundle.read_stored()
    exported = export_network(bundle, load_network(bundle), stored, examples, measure_test)
    write_bundle(
        out,
        config=bundle.config,
        inputs=bundle.inputs,
        weights=stored,
        graphs=exported.graphs,
        report=exported.report,
        golden=exported.golden,
        card=exported.card,
        verify=load_verified,
    )
    return load_verified(out)


def export_network(
    bundle: Bundle,
    network: MultimodalClassifier,
    stored: Mapping[str, Array],
    examples: Examples | None,
    measure_test: bool,
) -> Exported:
    """Export a network with the config of a bundle, whose report, golden inputs and card are brought up to date.

    `stored` has the network's weights as the bundle stores them. Graphs in 8 bits need `examples`, the rows of its training.
    """
    graphs = export_graphs(network, bundle.inputs, bundle.config.network.width)
    report = {key: value for key, value in bundle.report.items() if key != "int8"}
    golden = [{key: value for key, value in entry.items() if key != NAME} for entry in bundle.golden]
    card = without_section(bundle.card, IN_8_BITS)
    if examples is None:
        return Exported(graphs, golden, report, card, None)
    splits = [split for split in ("test", "unseen") if measure_test and examples.split(split)]
    threads = torch.get_num_threads()
    quantised = quantise(network, bundle.config, stored, graphs, examples, splits=splits, threads=threads)
    report["int8"] = quantised.report
    card = with_section(card, IN_8_BITS, in_8_bits(quantised.report))
    return Exported({**graphs, **quantised.graphs}, quantised.replayed(golden, bundle), report, card, quantised.runtime)


def remeasure(
    directory: Path,
    out: Path,
    *,
    source: Path,
    work: Path,
    split_seed: int = 0,
    workers: int = 2,
    roots: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write the bundle at `directory` to `out` with the metrics that its report lacks, and return their names.

    These are the confusion matrix, reliability and other metrics of every split in the report of an older release. Its metrics
    and all other files don't change. Predictions are those of the bundle in float32. The manifest must have the same rows in the
    same splits; its images may differ if another version drew them, so the report gets its data digest. Raises ModelError.
    """
    check_replaceable(out)
    use_available_cores()
    bundle, threads = read_bundle(directory), torch.get_num_threads()
    float32 = suitable(bundle)[-1]
    runtime = start_runtime(float32, bundle, threads=threads)
    manifest = _read(bundle, source, split_seed, workers, roots)
    if bundle.report["data"]["split"] not in (describe_split(manifest), describe_split(manifest, escaped=False)):
        raise ModelError(
            f"{source}: other rows, labels or splits; allowed: the manifest that the bundle was trained on"
        )
    examples = prepare_examples(manifest, bundle.inputs, input_fingerprint(bundle.inputs), work, workers=workers)
    metrics: dict[str, dict[str, Any]] = {}
    added: set[str] = set()
    for split, reported in bundle.report["metrics"].items():
        answers = evaluate.predict(runtime, examples, examples.split(split), bundle.config.network)
        computed = evaluate.report(answers, bundle.config, examples)
        metrics[split] = {}
        for key, measures in reported.items():
            lacking = {name: value for name, value in computed.get(key, {}).items() if name not in measures}
            metrics[split][key] = {**measures, **lacking}
            added.update(lacking)
    report = {**bundle.report, "metrics": metrics}
    if added:
        report[ADDED] = {"measures": sorted(added), "runtime": float32, "data": manifest.digest}
    write_bundle(
        out,
        config=bundle.config,
        inputs=bundle.inputs,
        weights=bundle.read_stored(),
        graphs=_graphs(bundle),
        report=report,
        golden=[dict(entry) for entry in bundle.golden],
        card=bundle.card,
        verify=load_verified,
    )
    return tuple(sorted(added))


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    """Return the graphs of a bundle as `write_bundle` takes them."""
    paths = (PurePosixPath(file) for file in bundle.files)
    return {path.stem: (bundle.directory / path).read_bytes() for path in paths if path.suffix == ".onnx"}


def _read(bundle: Bundle, source: Path, split_seed: int, workers: int, roots: Sequence[Path]) -> Manifest:
    """Return a manifest with splits as the training of a bundle reads it, and print its warnings. Raises ManifestError."""
    unlabelled = bundle.report["training"].get("align", False)
    manifest, _ = read_checked(source, bundle.config.network.target, split_seed, workers, roots, unlabelled)
    warn(manifest.warnings)
    return manifest


def trained_examples(
    bundle: Bundle, source: Path, work: Path, split_seed: int, workers: int, roots: Sequence[Path]
) -> Examples:
    """Return the prepared rows of the manifest that the bundle was trained on. Raises ModelError."""
    manifest = _read(bundle, source, split_seed, workers, roots)
    trained, digest = bundle.report["data"]["digest"], manifest.digest
    if trained != digest:
        raise ModelError(
            f"{source}: data digest {digest[:12]}…; allowed: the data that the bundle was trained on, {trained[:12]}…"
        )
    return prepare_examples(manifest, bundle.inputs, input_fingerprint(bundle.inputs), work, workers=workers)
