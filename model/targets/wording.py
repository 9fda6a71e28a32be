"""Phrases of model cards that several targets share."""

from typing import Final

CALIBRATION_ERROR: Final = "is the mean gap between confidence and accuracy over 15 bins of equal mass"
BOOTSTRAP: Final = (
    "95 % intervals from a bootstrap over groups of related items; where groups are too few for that, or all answers right or all "
    "wrong"
)
