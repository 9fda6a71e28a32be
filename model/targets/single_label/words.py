"""Model card texts of the single-label target."""

from typing import Final

from polymodal.model.targets.contract import Words
from polymodal.model.targets.wording import BOOTSTRAP, CALIBRATION_ERROR

WORDS: Final = Words(
    "Chooses one of {count} labels for {inputs}: {labels}.",
    f"Accuracy and macro-F1 with {BOOTSTRAP}, accuracy has Wilson's interval and macro-F1 none. Calibration error "
    f"{CALIBRATION_ERROR}.",
    "It always answers with one of its labels, also for {example} that shows none of them; look at the score before acting on "
    "an answer.",
)
