"""From bytes to eight numbers."""

from typing import ClassVar

import numpy as np

from polymodal.model.errors import Undecodable
from polymodal.model.types import InputSpec, Probe, Workload

SAMPLES = 8


class ToneInput:
    name = "tone"
    files = ()
    free_axes: ClassVar = {}

    @classmethod
    def load(cls, settings, folder):
        return cls(**settings)

    def settings(self):
        return {}

    def save(self, folder):
        pass

    def describe(self):
        return InputSpec(self.name, ("audio/x-tone",), {"samples": SAMPLES})

    def decode(self, content):
        if len(content) != SAMPLES:
            raise Undecodable(self.name, f"{len(content)} samples", f"{SAMPLES} samples")
        return np.frombuffer(content, dtype=np.uint8)

    def preprocess(self, decoded):
        return decoded

    def collate(self, arrays):
        return {"samples": np.stack(arrays)}

    @staticmethod
    def workload(content):
        return Workload("tone", float(len(content)))

    def probes(self):
        return (Probe(bytes(SAMPLES), bytes(SAMPLES), most=float(SAMPLES), embeds_alike=True),)

    def blank(self):
        return np.zeros(SAMPLES, dtype=np.uint8)


INPUT = ToneInput
