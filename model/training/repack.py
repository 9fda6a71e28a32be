"""A finished bundle packed anew: with other graphs, in 8 bits if wanted, or with measures that its report lacks."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch

from model.bundle import Bundle, check_replaceable, read_bundle, write_bundle
from model.config import TaskName
from model.errors import ModelError
from model.manifest import Manifest
from model.predictor import Predictor
from model.runtimes import start_runtime, suitable
from model.runtimes.onnx_int8_runtime import NAME
from model.runtimes.torch_runtime import load_network
from model.training import evaluate
from model.training.card import with_8_bits, without_8_bits
from model.training.checks import read_checked
from model.training.examples import Examples, input_fingerprint, prepare_examples
from model.training.export import export_graphs
from model.training.int8 import quantise
from model.training.progress import warn
from model.training.splits import describe_split
from model.training.train import load_verified

ADDED: Final = "added"
"""In a report: which measures were added to it after the training, and by what."""


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
) -> Predictor:
    """Write the bundle at `directory` to `out` with new graphs: in float32, and with the manifest `source` in 8 bits too.

    The manifest must be the one that the bundle was trained on, as its training part tells ranges and its validation part decides;
    its prepared rows are kept in `work`. Weights and calibration stay as they are. Raises ModelError.
    """
    check_replaceable(out)
    bundle, threads = read_bundle(directory), torch.get_num_threads()
    config, stored = bundle.config, bundle.read_stored()
    network = load_network(bundle)
    graphs = export_graphs(network, bundle.inputs, config.network.width)
    report = {key: told for key, told in bundle.report.items() if key != "int8"}
    golden = [{key: told for key, told in each.items() if key != NAME} for each in bundle.golden]
    card = without_8_bits(bundle.card)
    if source is not None:
        examples = _examples(bundle, source, work, split_seed, workers, roots)
        splits = [split for split in ("test", "unseen") if measure_test and examples.split(split)]
        quantised = quantise(network, config, stored, graphs, examples, splits=splits, threads=threads)
        golden = quantised.replayed(golden, bundle)
        graphs |= quantised.graphs
        report["int8"] = quantised.report
        card = with_8_bits(card, report)
    write_bundle(
        out,
        config=config,
        inputs=bundle.inputs,
        weights=stored,
        graphs=graphs,
        report=report,
        golden=golden,
        card=card,
        verify=load_verified,
    )
    return load_verified(out)


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
    """Write the bundle at `directory` to `out` with the measures that its report lacks, and say which those are.

    A report that was written by an older release gets today's confusion matrix, reliability and so on, of every part that it
    tells of; figures that it has stay as they are, and so does every other file. The answers are those of the bundle in float32, as
    it serves them. The manifest must have the same rows in the same parts; its pictures may have been drawn anew by another version
    of what draws them, so the report says which data it was. Raises ModelError.
    """
    check_replaceable(out)
    bundle, threads = read_bundle(directory), torch.get_num_threads()
    exact = suitable(bundle)[-1]
    runtime = start_runtime(exact, bundle, threads=threads)
    manifest = _read(source, bundle.config.network.task, split_seed, workers, roots)
    if bundle.report["data"]["split"] not in (describe_split(manifest), describe_split(manifest, escaped=False)):
        raise ModelError(f"{source}: other rows, labels or parts; allowed: the manifest that the bundle was trained on")
    examples = prepare_examples(manifest, bundle.inputs, input_fingerprint(bundle.inputs), work, workers=workers)
    metrics, added = {}, set[str]()
    for split, known in bundle.report["metrics"].items():
        answers = evaluate.ask(runtime, examples, examples.split(split), bundle.config.network)
        fresh = evaluate.report(answers, bundle.config, examples)
        metrics[split] = {key: _completed(told, fresh.get(key, {}), added) for key, told in known.items()}
    report = {**bundle.report, "metrics": metrics}
    if added:
        report[ADDED] = {"measures": sorted(added), "runtime": exact, "data": manifest.digest}
    write_bundle(
        out,
        config=bundle.config,
        inputs=bundle.inputs,
        weights=bundle.read_stored(),
        graphs=_graphs(bundle),
        report=report,
        golden=[dict(each) for each in bundle.golden],
        card=bundle.card,
        verify=load_verified,
    )
    return tuple(sorted(added))


def _completed(told: Mapping[str, Any], fresh: Mapping[str, Any], added: set[str]) -> dict[str, Any]:
    lacking = {name: value for name, value in fresh.items() if name not in told}
    added |= set(lacking)
    return {**told, **lacking}


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    """Every graph of a bundle as it is, by the name that `write_bundle` takes."""
    paths = (PurePosixPath(file) for file in bundle.files)
    return {path.stem: (bundle.directory / path).read_bytes() for path in paths if path.suffix == ".onnx"}


def _read(source: Path, task: TaskName, split_seed: int, workers: int, roots: Sequence[Path]) -> Manifest:
    """Read a manifest with splits, and show in which other way than it is written it was read. Raises ManifestError."""
    manifest, _ = read_checked(source, task, split_seed, workers, roots)
    warn(manifest.warnings)
    return manifest


def _examples(
    bundle: Bundle, source: Path, work: Path, split_seed: int, workers: int, roots: Sequence[Path]
) -> Examples:
    """The manifest's rows, if it is what the bundle was trained on. Raises ModelError."""
    manifest = _read(source, bundle.config.network.task, split_seed, workers, roots)
    trained, found = bundle.report["data"]["digest"], manifest.digest
    if trained != found:
        raise ModelError(
            f"{source}: data digest {found[:12]}…; allowed: the data that the bundle was trained on, {trained[:12]}…"
        )
    return prepare_examples(manifest, bundle.inputs, input_fingerprint(bundle.inputs), work, workers=workers)
