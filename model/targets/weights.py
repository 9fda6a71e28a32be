"""Class weights, which multiply the loss of each label."""

from collections.abc import Sequence

from polymodal.model.errors import ModelError
from polymodal.model.spelling import spelled
from polymodal.model.targets import TARGETS
from polymodal.model.targets.numbers import is_number


def class_weights(option: str, target: str, training: Sequence[str], labels: tuple[str, ...]) -> dict[str, float]:
    """Parse "none" (no weights), "balanced", or LABEL=WEIGHT,… (1 for labels that are not named) to weights by label.

    Raises ModelError when a label is unknown or a weight is no positive number.
    """
    if option == "none":
        return {}
    if option == "balanced":
        return TARGETS[target].cells.balanced_weights(training, labels)
    weights = dict.fromkeys(labels, 1.0)
    for entry in option.split(","):
        name, _, weight = entry.rpartition("=")
        label = spelled(name)
        if label not in weights:
            known = f"none, balanced, or LABEL=WEIGHT,… for {', '.join(labels)}" if labels else "none"
            raise ModelError(f"class weights: {entry!r}; allowed for this {target} data: {known}")
        if not is_number(weight) or not float(weight) > 0:
            raise ModelError(f"class weights: {weight!r} for {label!r}; allowed: a number above 0")
        weights[label] = float(weight)
    return weights
