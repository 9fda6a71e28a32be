"""One room per kind of input: what is accepted, how it is decoded, preprocessed and put into a batch.

Adding a modality is a new room with an `input.py` and an `encoders.py`, and an entry in MODALITIES.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self

from model.modalities.image.input import ImageInput
from model.modalities.text.input import TextInput
from model.types import Array, InputSpec, Parts, Probe, Workload


class Input(Protocol):
    """The way from one modality's bytes to arrays; the same code while training and while serving.

    Numpy only, never torch. Implementations are immutable, and all their methods are pure and thread-safe.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """What `save` writes."""

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from a bundle: `settings` is this input's part of config.json, `folder` holds its files."""
        ...

    def settings(self) -> dict[str, Any]:
        """What `load` needs beside the files; JSON-ready."""
        ...

    def save(self, folder: Path) -> None:
        """Write this input's files, if it has any, into a bundle's folder."""
        ...

    def describe(self) -> InputSpec:
        """What a client may send."""
        ...

    def decode(self, content: bytes | str) -> Any:  # noqa: ANN401 — each room has its own decoded form
        """Check and decode; None when there is nothing in it. Raises InputError."""
        ...

    def preprocess(self, decoded: Any) -> Array:  # noqa: ANN401
        """From the decoded form to the array that `collate` takes."""
        ...

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Put B preprocessed arrays into one batch: the encoder's inputs by name, each with B rows."""
        ...

    @staticmethod
    def workload(content: bytes | str) -> Workload:
        """About how much there is to decode and to embed, guessed without doing either: more than 0 where there is anything."""
        ...

    def probes(self) -> Sequence[Probe]:
        """What shows how long both take, one for each kind of workload; they differ in decoding alone."""
        ...

    def blank(self) -> Array:
        """The smallest valid preprocessed array, for tracing graphs and for warming up."""
        ...


MODALITIES: Final[Mapping[str, type[Input]]] = {"image": ImageInput, "text": TextInput}


def workload(parts: Parts) -> dict[str, float]:
    """About how much there is to decode and to embed, by its kind. Takes microseconds."""
    return dict(MODALITIES[name].workload(part) for name, part in parts.items() if name in MODALITIES)


def prepare(inputs: Mapping[str, Input], parts: Parts) -> dict[str, Array]:
    """Decode and preprocess the parts of one example, by modality, in the order of `inputs`; blank parts are left out.

    Serving and training both come through here, so that a network meets what it was trained on. Raises InputError.
    """
    decoded = {name: each.decode(parts[name]) for name, each in inputs.items() if name in parts}
    return {name: inputs[name].preprocess(each) for name, each in decoded.items() if each is not None}
