"""One linear layer."""

import torch
from torch import nn

from tests.toys.tone.input import SAMPLES


class Loud(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.project = nn.Linear(SAMPLES, width)

    def forward(self, samples):
        return self.project(samples.to(torch.float32) / 255.0)


ENCODERS = {"loud": Loud}
