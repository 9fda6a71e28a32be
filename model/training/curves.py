"""A log of the training for TensorBoard."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polymodal.model.errors import ModelError


class Curves:
    """Loss and learning rates after each step, and validation scores after each epoch, by the number of steps."""

    def __init__(self, folder: Path) -> None:
        """Open the log. Raises ModelError without the package tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
        except ImportError as missing:
            advice = "pip install 'polymodal[tensorboard]' brings it; or leave --tensorboard out"
            raise ModelError(f"--tensorboard: the package tensorboard is not installed; {advice}") from missing
        self._start = SummaryWriter
        self._folder = folder
        self._writer: Any = None
        self._steps = 0

    def begin(self, steps: int) -> None:
        """Start after this number of steps: remove later steps of an interrupted run, and at 0 an older log."""
        if steps == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._steps = steps
        self._writer = self._start(str(self._folder), purge_step=steps + 1)

    def step(self, loss: float, rates: Sequence[float]) -> None:
        """Log a step with the learning rates of the optimiser's groups."""
        self._steps += 1
        self._writer.add_scalar("loss", loss, self._steps)
        for number, rate in enumerate(rates):
            self._writer.add_scalar(f"learning rate/group {number}", rate, self._steps)

    def epoch(self, scores: Mapping[str, float]) -> None:
        """Log an epoch, and write the log to the disk."""
        for name, score in scores.items():
            self._writer.add_scalar(f"validation/{name}", score, self._steps)
        self._writer.flush()

    def close(self) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()
