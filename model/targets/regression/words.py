"""Model card texts of the regression target."""

from typing import Final

from polymodal.model.targets.contract import Words
from polymodal.model.targets.wording import BOOTSTRAP

WORDS: Final = Words(
    "Estimates a number from {inputs}.",
    f"Errors are in the number's own unit, with {BOOTSTRAP}, they have none. R² is the part of the variance that is "
    "explained: 0 for always answering the mean. An answer's interval is split conformal: it is to hold the right number for "
    "90 % of items like those of the validation split.",
    "It always answers with a number, also for {example} that has nothing to do with it, and its interval knows only how wrong "
    "it was on the validation split, not whether an item is unlike all of that.",
)
