"""Import trained dual encoders, such as CLIP and SigLIP, as bundles: `polymodal import`."""

import base64
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from polymodal.model.bundle import check_replaceable, halve_weights, write_bundle
from polymodal.model.config import EncodersConfig
from polymodal.model.errors import ModelError
from polymodal.model.kinds.encoders import Encoders, load_encoders
from polymodal.model.modalities import MODALITIES, hub
from polymodal.model.modalities.towers import DualEncoder, Tower, read_dual_encoder
from polymodal.model.runtimes.onnx_runtime import is_unused
from polymodal.model.training.export import encoder_feed, export_graph
from polymodal.model.training.train import model_name
from polymodal.model.types import Array, FloatArray

TOLERANCE: Final = 1e-4
"""Largest deviation of a vector of length 1 from what transformers compute for a golden input: the length of the difference."""
CARD: Final = "README.md"
PACKAGES: Final = ("polymodal", "transformers", "torch", "onnx", "tokenizers", "pillow")
NOT_STATED: Final = "not stated"
DECIMALS: Final = 7
CARD_TEXT: Final = """\
# {name}

Embeds {inputs} as vectors of {width} numbers in one space: the more two things have to do with each other, the higher is the
cosine of their vectors. It predicts no labels.

## Where it comes from

Imported from `{source}`: a model of the family {family} with {parameters:,} parameters, trained elsewhere. Its licence, as its own
card states it: {licence}. What it was trained on, and how good it is, is in its own card; nothing was trained or measured here.

## How it was checked

For the golden inputs, the vectors are those of transformers {transformers} within {tolerance:g}. Weights are stored without loss.

## Limits

- It has no calibration. A cosine is not a probability, and answers have no `match`. The numbers with which its training turned
  cosines into logits ({comparison}) are in `report.json`; they are no calibration either.
- Preprocessing is the model's own, except that pictures are turned upright and transparent ones are laid on white.
- Texts are cut at the number of tokens that the model reads.
- It has not been examined for bias between groups of people.
"""


def import_encoders(source: str, out: Path, *, name: str | None = None, cache: Path) -> Encoders:
    """Write a bundle of the dual encoder at `source`, a folder or `hf://owner/name`, and return it as serving loads it.

    `name` is the model's name in a service, by default that of `out`. Its golden inputs have the vectors that transformers compute,
    with their own preprocessing. Raises ModelError if ours differ.
    """
    check_replaceable(out)
    name = model_name(name or out.name)
    folder = hub.fetch_model(source, cache, CARD)
    dual = read_dual_encoder(source, folder)
    towers = {entry: tower_of(dual) for entry, tower_of in _readers().items()}
    golden = [entry for modality, tower in towers.items() for entry in _golden(modality, tower)]
    graphs, weights = _exported(towers)
    width = len(next(iter(golden[0]["vectors"].values())))
    report = _report(source, dual, width)
    settings = {modality: tower.input.settings() for modality, tower in towers.items()}
    config = EncodersConfig(name=name, modalities=settings, width=width)
    inputs = {modality: tower.input for modality, tower in towers.items()}
    card = write_card(config, report)
    del dual, towers  # their weights stay, in the arrays below

    def verify(written: Path) -> None:
        weights.clear()  # they are written, and a session needs as much memory again
        _check_agreement(source, load_encoders(written), golden)

    write_bundle(
        out,
        config=config,
        inputs=inputs,
        weights=weights,
        graphs=graphs,
        report=report,
        golden=golden,
        card=card,
        verify=verify,
    )
    model = load_encoders(out)
    model.warm_up()
    return model


def _readers() -> dict[str, Any]:
    """Return the functions that read a tower, by modality."""
    modules = ((name, modality.optional_module("towers")) for name, modality in MODALITIES.items())
    return {name: module.read_tower for name, module in modules if module}


def _golden(modality: str, tower: Tower) -> list[dict[str, Any]]:
    """Return the golden inputs of one tower, with vectors of length 1."""
    vectors: FloatArray = tower.reference(tower.examples)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encoded = [one if isinstance(one, str) else base64.b64encode(one).decode() for one in tower.examples]
    return [
        {"parts": {modality: content}, "vectors": {modality: vector.astype(float).round(DECIMALS).tolist()}}
        for content, vector in zip(encoded, vectors, strict=True)
    ]


def _exported(towers: Mapping[str, Tower]) -> tuple[dict[str, bytes], dict[str, Array]]:
    """Return the graphs by modality, and the weights that they use, as they are stored."""
    graphs: dict[str, bytes] = {}
    weights: dict[str, Array] = {}
    for modality, tower in towers.items():
        feed, free = encoder_feed(tower.input)
        graph = export_graph(tower.module.eval(), feed, list(feed), free)
        own = {name: tensor for name, tensor in tower.module.state_dict().items() if not is_unused(graph, name)}
        floats = {name: tensor.numpy() for name, tensor in own.items() if tensor.is_floating_point()}
        weights |= {f"encoders.{modality}.{name}": array for name, array in halve_weights(floats).items()}
        graphs[modality] = graph
    return graphs, weights


def _check_agreement(source: str, model: Encoders, golden: list[dict[str, Any]]) -> None:
    """Raise ModelError if a written bundle's vectors of the golden inputs differ from those of transformers."""
    model.warm_up()
    deviation = max(map(model.deviation, golden))
    if not deviation <= TOLERANCE:  # written so that NaN fails too
        raise ModelError(f"{source}: vectors are {deviation:.3g} away from those of transformers; allowed: {TOLERANCE}")


def _report(source: str, dual: DualEncoder, width: int) -> dict[str, Any]:
    """Return the origin, and the numbers with which the model was trained to compare; these do not make probabilities."""
    numbers = {name: getattr(dual.model, name, None) for name in ("logit_scale", "logit_bias")}
    comparison = {name: round(float(value.detach()), 6) for name, value in numbers.items() if value is not None}
    if "logit_scale" in comparison:
        comparison["logit_scale"] = round(float(np.exp(comparison["logit_scale"])), 6)  # stored as its logarithm
    parameters = sum(parameter.numel() for parameter in dual.model.parameters())
    return {
        "source": source if source.startswith(hub.HUB) else dual.folder.resolve().name,
        "family": dual.family,
        "licence": licence_of(dual.folder),
        "parameters": parameters,
        "width": width,
        "comparison": comparison,
        "code": {package: metadata.version(package).partition("+")[0] for package in PACKAGES},
    }


def licence_of(folder: Path) -> str:
    """Return the licence that the metadata at the beginning of the folder's card state."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    header = re.match(r"\s*---\s*\n(.*?)\n---", text, re.DOTALL)
    stated = re.findall(r"^license(?:_name)?:[\s-]*(\S.*)$", header[1], re.MULTILINE) if header else []
    return ", ".join(one.strip().strip("\"'") for one in stated)[:200] or NOT_STATED


def write_card(config: EncodersConfig, report: Mapping[str, Any]) -> str:
    """Return Markdown for README.md of the bundle and for `/v1/models/{name}`."""
    inputs = " and ".join(MODALITIES[name].common_noun + "s" for name in config.order)
    comparison = ", ".join(f"{name} {value:g}" for name, value in report["comparison"].items())
    code = report["code"]
    return CARD_TEXT.format(
        name=config.name,
        inputs=inputs,
        width=config.width,
        source=report["source"],
        family=report["family"],
        parameters=report["parameters"],
        licence=report["licence"],
        transformers=code["transformers"],
        tolerance=TOLERANCE,
        comparison=comparison or "none",
    )
