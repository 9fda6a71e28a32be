"""Model card texts of the multi-label target."""

from typing import Final

from polymodal.model.targets.contract import Words
from polymodal.model.targets.wording import BOOTSTRAP, CALIBRATION_ERROR

WORDS: Final = Words(
    "Says which of {count} labels fit {inputs}; any number may, also none: {labels}.",
    "A label is selected when its score reaches a threshold of its own, chosen for its F1 on the validation split. F1 with "
    f"{BOOTSTRAP}, it has none. Mean average precision is the area below precision over recall, averaged over the labels; "
    f"calibration error {CALIBRATION_ERROR}, over the decisions about all labels.",
    "It knows no other labels. Thresholds and scores are only as good as the validation split: where that has few items with a "
    "label, they are a rough guess.",
)
