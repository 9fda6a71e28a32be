"""A finished bundle with its graphs exported anew: after an update of the exporter, or to have them in 8 bits."""

from pathlib import Path

import torch

from model.bundle import Bundle, check_replaceable, read_bundle, write_bundle
from model.errors import ModelError
from model.predictor import Predictor, load_bundle
from model.runtimes.onnx_int8_runtime import NAME
from model.runtimes.torch_runtime import load_network
from model.training.card import with_8_bits, without_8_bits
from model.training.checks import read_checked
from model.training.examples import Examples, input_fingerprint, prepare_examples
from model.training.export import export_graphs
from model.training.int8 import quantise


def export(
    directory: Path,
    out: Path,
    *,
    source: Path | None = None,
    work: Path,
    split_seed: int = 0,
    measure_test: bool = True,
    workers: int = 2,
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
        examples = _examples(bundle, source, work, split_seed, workers)
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
    )
    predictor = load_bundle(out, threads=threads)
    predictor.warm_up()
    return predictor


def _examples(bundle: Bundle, source: Path, work: Path, split_seed: int, workers: int) -> Examples:
    """The manifest's rows, if it is what the bundle was trained on. Raises ModelError."""
    manifest, _ = read_checked(source, bundle.config.network.task, split_seed, workers)
    trained, found = bundle.report["data"]["digest"], manifest.digest
    if trained != found:
        raise ModelError(
            f"{source}: data digest {found[:12]}…; allowed: the data that the bundle was trained on, {trained[:12]}…"
        )
    return prepare_examples(manifest, bundle.inputs, input_fingerprint(bundle.inputs), work, workers=workers)
