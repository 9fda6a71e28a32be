"""The work that a recording causes, estimated from its bytes."""

from polymodal.model.sound import seconds_of
from polymodal.model.types import Workload


class RecordingInput:
    """A recording, whose workload is its seconds."""

    @staticmethod
    def workload(content: bytes | bytearray | str) -> Workload:
        """Return the estimated seconds of sound."""
        return Workload("audio", seconds_of(content))


INPUT = RecordingInput
