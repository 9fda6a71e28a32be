"""Adds the toy modality and the toy task to their tables, before anything is derived from them."""

from polymodal.model.modalities import MODALITIES
from polymodal.model.tasks import TASKS
from tests.toys.measure import Measure
from tests.toys.tone import TONE

MODALITIES[TONE.name] = TONE
TASKS[Measure.name] = Measure()
