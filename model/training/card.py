"""Model cards: purpose, metrics, training data and licences of a bundle (after arXiv:1810.03993)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from polymodal.model.calibration import calibration_sources
from polymodal.model.config import BundleConfig
from polymodal.model.evaluation.grids import spaced
from polymodal.model.modalities import MODALITIES
from polymodal.model.targets import TARGETS
from polymodal.model.targets.contract import Figure

TITLES: Final = {
    "test": "test split",
    "unseen": "unseen source (never trained or tuned on)",
    "validation": "validation split",
}
IN_8_BITS: Final = "## In 8 bits"
SIMILARITY: Final = "## Similarity"
LIMITS: Final = "## Limits"
NOTICES: Final = {
    "CC-BY-4.0": "Pictures under CC-BY-4.0 in the training data are from Twemoji, © Twitter, Inc and other contributors.",
}


def write_card(config: BundleConfig, report: Mapping[str, Any], origins: tuple[str, ...]) -> str:
    """Return Markdown for README.md of the bundle and for `/v1/models/{name}`."""
    network = config.network
    target = TARGETS[network.target]
    words, figures = target.words, target.scoring.figures
    inputs, labels = _inputs(network.order), ", ".join(network.labels)
    example = " or ".join(f"a {MODALITIES[name].common_noun}" for name in network.order)
    sections = [
        f"# {config.name}",
        words.purpose.format(inputs=inputs, labels=labels, count=len(network.labels)),
        "## How good it is",
        words.figures,
        *(_metrics(TITLES[split], report["metrics"][split], figures) for split in TITLES if split in report["metrics"]),
        *_calibration(config, report["metrics"]["validation"]),
        "## What it was trained on",
        _data(report["data"]),
        *(_origins(origins)),
        "## How it was trained",
        _training(config, report),
        *((IN_8_BITS, in_8_bits(report["int8"])) if "int8" in report else ()),
        LIMITS,
        f"{words.limits.format(example=example)} It has not been examined for bias between groups of people.",
    ]
    return "\n\n".join(sections) + "\n"


def _inputs(order: Sequence[str]) -> str:
    """Return a phrase for the inputs of a network."""
    if len(order) == 1:
        return order[0]
    *first, last = order
    alone = "any one of them alone" if len(order) == 2 else "any of them without the others"
    return f"{', '.join(first)} and {last} together, or {alone}"


def with_section(card: str, title: str, text: str) -> str:
    """Return a card with a section before its limits; an earlier section of this title is replaced."""
    before, limits, after = without_section(card, title).partition(LIMITS)
    return "\n\n".join([before.rstrip(), title, text, limits + after])


def without_section(card: str, title: str) -> str:
    """Return a card without the section of this title."""
    before, heading, after = card.partition(f"{title}\n")
    following = after.partition("\n## ")[2]
    return f"{before}## {following}" if heading else card


def similarity(report: Mapping[str, Any]) -> str:
    """Return the text about the measures of aligned vectors."""
    alignment = report["alignment"]
    pairs = sum(alignment["data"]["items"].get("train", {}).values())
    lines = [
        f"Vectors of the space `aligned` ({alignment['width']} numbers) may be compared, whatever their inputs are. Their heads "
        f"were fitted to {pairs:,} pairs of the train split ({alignment['heads']}); labels were not used, and the encoders stayed "
        "as they were. Each query has one right item in a gallery with one item of each group. Measured with the runtime "
        f"{alignment['runtime']}:",
        "",
        "| split | search | gallery | recall at 1 | at 5 | at 10 | by chance at 1 | median rank |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for split, measures in alignment["metrics"].items():
        for search, figures in measures["retrieval"].items():
            if figures["gallery"]:
                recalls = " | ".join(_with_interval(figures, f"recall_at_{cut}", ".3f") for cut in (1, 5, 10))
                chance = f"{figures['chance']['recall_at_1']:.3f} | {figures['median_rank']:.0f}"
                lines.append(f"| {split} | {search} | {figures['gallery']} | {recalls} | {chance} |")
    if any(measures["fused_queries"] for measures in alignment["metrics"].values()):
        lines += [
            "",
            "What a query of several inputs finds, next to queries of one: the right item is another one of the query's group.",
            "",
            "| split | query | finds | gallery | recall at 1 | at 10 |",
            "|---|---|---|---|---|---|",
        ]
    for split, measures in alignment["metrics"].items():
        for item, queries in measures["fused_queries"].items():
            for query, figures in queries.items():
                recalls = " | ".join(_with_interval(figures, f"recall_at_{cut}", ".3f") for cut in (1, 10))
                lines.append(f"| {split} | {spaced(query)} | {item} | {figures['gallery']} | {recalls} |")
    lines += [
        "",
        "`match` is the probability that two items belong together if half of the compared pairs do. It was calibrated on the "
        "validation split for these pairs of inputs:",
        "",
        "| split | pair | pairs | AUROC | calibration error |",
        "|---|---|---|---|---|",
    ]
    for split, measures in alignment["metrics"].items():
        for pair, figures in measures["match"].items():
            errors = f"{figures['auroc']:.3f} | {figures['calibration_error']:.3f}"
            lines.append(f"| {split} | {' with '.join(map(spaced, pair.split('~')))} | {figures['pairs']} | {errors} |")
    return "\n".join(lines)


def in_8_bits(measures: Mapping[str, Any]) -> str:
    """Return the text about the losses of the 8-bit runtime."""
    if set(measures["encoders"].values()) == {"float32"}:
        return "Nothing is computed in 8 bits, as whatever was tried lost more than the tolerance (`report.json`)."
    encoders = ", ".join(f"{name}: {what}" for name, what in measures["encoders"].items())
    tolerances = ", ".join(f"{allowed} of {what}" for what, allowed in measures["tolerance"].items())
    lines = [
        f"On a CPU, encoders are executed by graphs in 8 bits ({encoders}). They were kept because on the validation split no "
        f"set of inputs lost more than {tolerances}; all other figures on this card are those of float32.",
        "",
        f"| split | given | {' | '.join(f'{what}, {kind}' for what in measures['tolerance'] for kind in _KINDS)} |",
        "|---|---" + "|---" * 2 * len(measures["tolerance"]) + "|",
    ]
    for split, kinds in measures["metrics"].items():
        for key in kinds["int8"]:
            figures = [f"{kinds[kind][key][what]:.3f}" for what in measures["tolerance"] for kind in _KINDS]
            lines.append(f"| {split} | {spaced(key)} | {' | '.join(figures)} |")
    return "\n".join(lines)


_KINDS: Final = ("float32", "int8")


def _metrics(title: str, subsets: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    lines = [
        f"### On the {title}",
        "",
        f"| given | items | {' | '.join(figure.title for figure in figures.values())} |",
        "|---" * (2 + len(figures)) + "|",
    ]
    for subset, measures in subsets.items():
        cells = " | ".join(_with_interval(measures, name, figure.form) for name, figure in figures.items())
        lines.append(f"| {spaced(subset)} | {measures['items']} | {cells} |")
    headline, figure = next(iter(figures.items()))
    lines += [
        _source_line(subset, measures["sources"], headline, figure)
        for subset, measures in subsets.items()
        if len(measures["sources"]) > 1
    ]
    return "\n".join(lines)


def _calibration(config: BundleConfig, validation: Mapping[str, Any]) -> Iterator[str]:
    """Yield a paragraph about sets of inputs without a calibration of their own, if there are any."""
    sources = calibration_sources(config, validation)
    lacking = [f"{spaced(key)} (as {spaced(source)})" for key, source in sources.items() if source not in (key, None)]
    if lacking or len(config.network.order) > 2:
        rule = (
            "a set of inputs with too few rows in the validation split is calibrated as the nearest set that has enough: the one "
            "that differs in the fewest inputs, of equally near ones the smallest"
        )
        named = f" These are {', '.join(lacking)}." if lacking else ""
        yield f"Calibration: {rule}.{named}"


def _with_interval(measures: Mapping[str, Any], name: str, form: str) -> str:
    if measures[name] is None:
        return "–"
    if (interval := measures["intervals"].get(name)) is None:
        return f"{measures[name]:{form}}"
    low, high = interval
    return f"{measures[name]:{form}} [{low:{form}}, {high:{form}}]"


def _source_line(subset: str, sources: Mapping[str, Any], headline: str, figure: Figure) -> str:
    values = ", ".join(
        f"{source} {measures[headline]:{figure.form}} ({measures['items']})" for source, measures in sources.items()
    )
    title = figure.title[0].upper() + figure.title[1:]
    return f"\n{title} by source (items), {spaced(subset)}: {values}."


def _data(data: Mapping[str, Any]) -> str:
    lines = ["| split | source (licence) | items |", "|---|---|---|"]
    for split, sources in data["items"].items():
        if split == "unseen":
            continue
        lines += [f"| {split} | {source} | {items} |" for source, items in sources.items()]
    lines += ["", f"Only the training split shaped the weights. Data digest: `{data['digest']}`."]
    lines += [f"\n{notice}" for licence, notice in NOTICES.items() if licence in str(data["items"].get("train", {}))]
    return "\n".join(lines)


def _origins(origins: tuple[str, ...]) -> list[str]:
    if not origins:
        return []
    return ["Training began from these weights:", "\n".join(f"- {origin}" for origin in origins)]


def _training(config: BundleConfig, report: Mapping[str, Any]) -> str:
    network, training = config.network, report["training"]
    weights = ", ".join(f"{label} {weight:.3g}" for label, weight in training.get("class_weights", {}).items())
    encoders = ", ".join(f"{modality.encoder.name} for the {name}" for name, modality in network.modalities.items())
    return (
        f"Preset `{report['preset']}`: {encoders}; fusion: {network.fusion}. Best of {training['epochs_run']} epochs: "
        f"{training['best_epoch']}; seed {training['seed']}; code revision `{report['code']['revision']}`. Every hyper-parameter, "
        "the learning curve, and the metrics of every label are in `report.json`."
        f"{f' Labels were weighted in the loss, so scores favour those with large weights: {weights}.' if weights else ''}"
    )
