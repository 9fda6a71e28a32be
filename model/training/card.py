"""The model card: what a bundle does, how well, on what it was trained and under which licences (after arXiv:1810.03993)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from model.config import BundleConfig, NetworkConfig, subsets
from model.evaluation.grids import spaced
from model.tasks import TASKS, Figure

TITLES: Final = {
    "test": "test part",
    "unseen": "unseen source (never trained or tuned on)",
    "validation": "validation part",
}


class Words(NamedTuple):
    """What a card says of one task."""

    purpose: str
    figures: str
    limits: str


NOUNS: Final = {"image": "a picture"}
"""What a card calls an input of a modality; the others take "a"."""
_GAP: Final = "is the mean gap between confidence and accuracy over 15 bins of equal mass"
_BOOTSTRAP: Final = (
    "95 % intervals from a bootstrap over groups of related items; where groups are too few for that, or all answers right or all "
    "wrong"
)
WORDS: Final[Mapping[str, Words]] = {
    "single-label": Words(
        "Chooses one of {count} labels for {inputs}: {labels}.",
        f"Accuracy and macro-F1 with {_BOOTSTRAP}, accuracy has Wilson's interval and macro-F1 none. Calibration error {_GAP}.",
        "It always answers with one of its labels, also for {example} that shows none of them; look at the score before acting on "
        "an answer.",
    ),
    "multi-label": Words(
        "Says which of {count} labels fit {inputs}; any number may, also none: {labels}.",
        "A label is selected when its score reaches a threshold of its own, chosen for its F1 on the validation part. F1 with "
        f"{_BOOTSTRAP}, it has none. Mean average precision is the area below precision over recall, averaged over the labels; "
        f"calibration error {_GAP}, over the decisions about all labels.",
        "It knows no other labels. Thresholds and scores are only as good as the validation part: where that has few items with a "
        "label, they are a rough guess.",
    ),
    "regression": Words(
        "Estimates a number from {inputs}.",
        f"Errors are in the number's own unit, with {_BOOTSTRAP}, they have none. R² is the part of the variance that is "
        "explained: 0 for always answering the mean. An answer's interval is split conformal: it is to hold the right number for "
        "90 % of items like those of the validation part.",
        "It always answers with a number, also for {example} that has nothing to do with it, and its interval knows only how wrong "
        "it was on the validation part, not whether an item is unlike all of that.",
    ),
}
IN_8_BITS: Final = "## In 8 bits"
LIMITS: Final = "## Limits"
NOTICES: Final = {
    "CC-BY-4.0": "Pictures under CC-BY-4.0 in the training data are from Twemoji, © Twitter, Inc and other contributors.",
}


def write_card(config: BundleConfig, report: Mapping[str, Any], origins: tuple[str, ...]) -> str:
    """Markdown, for README.md of the bundle and for `/v1/models/{name}`."""
    network = config.network
    words, figures = WORDS[network.task], TASKS[network.task].figures
    inputs, labels = _inputs(network.order), ", ".join(network.labels)
    example = " or ".join(NOUNS.get(name, f"a {name}") for name in network.order)
    parts = [
        f"# {config.name}",
        words.purpose.format(inputs=inputs, labels=labels, count=len(network.labels)),
        "## How good it is",
        words.figures,
        *(_metrics(TITLES[split], report["metrics"][split], figures) for split in TITLES if split in report["metrics"]),
        *_unmeasured(network, report["metrics"]["validation"]),
        "## What it was trained on",
        _data(report["data"]),
        *(_origins(origins)),
        "## How it was trained",
        _training(config, report),
        *(in_8_bits(report["int8"]) if "int8" in report else ()),
        LIMITS,
        f"{words.limits.format(example=example)} It has not been examined for bias between groups of people.",
    ]
    return "\n\n".join(parts) + "\n"


def _inputs(order: Sequence[str]) -> str:
    """What a network takes, in words."""
    if len(order) == 1:
        return order[0]
    *first, last = order
    alone = "any one of them alone" if len(order) == 2 else "any of them without the others"
    return f"{', '.join(first)} and {last} together, or {alone}"


def with_8_bits(card: str, report: Mapping[str, Any]) -> str:
    """A card with a section that says what the report does of 8 bits."""
    before, limits, after = without_8_bits(card).partition(LIMITS)
    return "\n\n".join([before.rstrip(), *in_8_bits(report["int8"]), limits + after])


def without_8_bits(card: str) -> str:
    """A card without that section."""
    before, limits, after = card.partition(LIMITS)
    return f"{before.partition(IN_8_BITS)[0].rstrip()}\n\n{limits}{after}"


def in_8_bits(told: Mapping[str, Any]) -> tuple[str, str]:
    """What the quicker runtime costs, as a section."""
    if set(told["encoders"].values()) == {"float32"}:
        return (
            IN_8_BITS,
            "Nothing is computed in 8 bits, as whatever was tried lost more than the tolerance (`report.json`).",
        )
    encoders = ", ".join(f"{name}: {what}" for name, what in told["encoders"].items())
    tolerances = ", ".join(f"{allowed} of {what}" for what, allowed in told["tolerance"].items())
    lines = [
        f"On a CPU, encoders are executed by graphs in 8 bits ({encoders}). They were kept because on the validation part no "
        f"set of inputs lost more than {tolerances}; all other figures on this card are those of float32.",
        "",
        f"| part | given | {' | '.join(f'{what}, {kind}' for what in told['tolerance'] for kind in _KINDS)} |",
        "|---|---" + "|---" * 2 * len(told["tolerance"]) + "|",
    ]
    for split, kinds in told["metrics"].items():
        for key in kinds["int8"]:
            figures = [f"{kinds[kind][key][what]:.3f}" for what in told["tolerance"] for kind in _KINDS]
            lines.append(f"| {split} | {spaced(key)} | {' | '.join(figures)} |")
    return IN_8_BITS, "\n".join(lines)


_KINDS: Final = ("float32", "int8")


def _metrics(title: str, subsets: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    lines = [
        f"### On the {title}",
        "",
        f"| given | items | {' | '.join(figure.title for figure in figures.values())} |",
        "|---" * (2 + len(figures)) + "|",
    ]
    for subset, told in subsets.items():
        each = " | ".join(_with_interval(told, name, figure.form) for name, figure in figures.items())
        lines.append(f"| {spaced(subset)} | {told['items']} | {each} |")
    headline, figure = next(iter(figures.items()))
    lines += [
        _source_line(subset, told["sources"], headline, figure)
        for subset, told in subsets.items()
        if len(told["sources"]) > 1
    ]
    return "\n".join(lines)


def _unmeasured(network: NetworkConfig, validation: Mapping[str, Any]) -> Iterator[str]:
    if lacking := [spaced(key) for key in subsets(network.order) if key not in validation]:
        yield f"No row of the validation part has {' or '.join(lacking)}: answers from that are not calibrated."


def _with_interval(told: Mapping[str, Any], name: str, form: str) -> str:
    if told[name] is None:
        return "–"
    if (interval := told["intervals"].get(name)) is None:
        return f"{told[name]:{form}}"
    low, high = interval
    return f"{told[name]:{form}} [{low:{form}}, {high:{form}}]"


def _source_line(subset: str, sources: Mapping[str, Any], headline: str, figure: Figure) -> str:
    each = ", ".join(f"{source} {told[headline]:{figure.form}} ({told['items']})" for source, told in sources.items())
    title = figure.title[0].upper() + figure.title[1:]
    return f"\n{title} by source (items), {spaced(subset)}: {each}."


def _data(data: Mapping[str, Any]) -> str:
    lines = ["| part | source (licence) | items |", "|---|---|---|"]
    for part, sources in data["items"].items():
        if part == "unseen":
            continue
        lines += [f"| {part} | {source} | {items} |" for source, items in sources.items()]
    lines += ["", f"Only the training part shaped the weights. Data digest: `{data['digest']}`."]
    lines += [f"\n{notice}" for licence, notice in NOTICES.items() if licence in str(data["items"].get("train", {}))]
    return "\n".join(lines)


def _origins(origins: tuple[str, ...]) -> list[str]:
    if not origins:
        return []
    return ["Training began from these weights:", "\n".join(f"- {origin}" for origin in origins)]


def _training(config: BundleConfig, report: Mapping[str, Any]) -> str:
    network, training = config.network, report["training"]
    weights = ", ".join(f"{label} {weight:.3g}" for label, weight in training.get("class_weights", {}).items())
    encoders = ", ".join(f"{each.encoder.name} for the {name}" for name, each in network.modalities.items())
    return (
        f"Preset `{report['preset']}`: {encoders}; fusion: {network.fusion}. Best of {training['epochs_run']} epochs: "
        f"{training['best_epoch']}; seed {training['seed']}; code revision `{report['code']['revision']}`. Every hyper-parameter, "
        "the learning curve, and the metrics of every label are in `report.json`."
        + (
            f" Labels were weighted in the loss, so scores favour those with large weights: {weights}."
            if weights
            else ""
        )
    )
