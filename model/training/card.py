"""The model card: what a bundle does, how well, on what it was trained and under which licences (after arXiv:1810.03993)."""

from collections.abc import Mapping
from typing import Any, Final

from model.config import BundleConfig

TITLES: Final = {
    "test": "test part",
    "unseen": "unseen source (never trained or tuned on)",
    "validation": "validation part",
}
NOTICES: Final = {
    "CC-BY-4.0": "Pictures under CC-BY-4.0 in the training data are from Twemoji, © Twitter, Inc and other contributors.",
}


def write_card(config: BundleConfig, report: Mapping[str, Any], origins: tuple[str, ...]) -> str:
    """Markdown, for README.md of the bundle and for `/v1/models/{name}`."""
    network = config.network
    parts = [
        f"# {config.name}",
        f"Classifies {' and '.join(network.order)} together, or any one of them alone, into one of {len(network.labels)} labels: "
        f"{', '.join(network.labels)}.",
        "## How good it is",
        "Accuracy and macro-F1 with 95 % intervals from a bootstrap over groups of related items; calibration error is the mean "
        "gap between confidence and accuracy over 15 bins of equal mass.",
        *(_metrics(TITLES[split], report["metrics"][split]) for split in TITLES if split in report["metrics"]),
        "## What it was trained on",
        _data(report["data"]),
        *(_origins(origins)),
        "## How it was trained",
        _training(config, report),
        "## Limits",
        "It always answers with one of its labels, also for a picture or a text that shows none of them; look at the score "
        "before acting on an answer. It has not been examined for bias between groups of people.",
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(title: str, subsets: Mapping[str, Any]) -> str:
    lines = [
        f"### On the {title}",
        "",
        "| given | items | accuracy | macro-F1 | calibration error |",
        "|---|---|---|---|---|",
    ]
    for subset, told in subsets.items():
        accuracy, macro_f1 = (_with_interval(told, name) for name in ("accuracy", "macro_f1"))
        lines.append(
            f"| {subset.replace('+', ' + ')} | {told['items']} | {accuracy} | {macro_f1} | {told['calibration_error']:.3f} |"
        )
    lines += [_source_line(subset, told["sources"]) for subset, told in subsets.items() if len(told["sources"]) > 1]
    return "\n".join(lines)


def _with_interval(told: Mapping[str, Any], name: str) -> str:
    low, high = told["intervals"][name]
    return f"{told[name]:.3f} [{low:.3f}, {high:.3f}]"


def _source_line(subset: str, sources: Mapping[str, Any]) -> str:
    each = ", ".join(f"{source} {told['accuracy']:.3f} ({told['items']})" for source, told in sources.items())
    return f"\nAccuracy by source (items), {subset.replace('+', ' + ')}: {each}."


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
    encoders = ", ".join(f"{each.encoder.name} for the {name}" for name, each in network.modalities.items())
    return (
        f"Preset `{report['preset']}`: {encoders}; fusion: {network.fusion}. Best of {training['epochs_run']} epochs: "
        f"{training['best_epoch']}; seed {training['seed']}; code revision `{report['code']['revision']}`. Every hyper-parameter, "
        "the learning curve, and the metrics of every label are in `report.json`."
    )
