"""Modalities: a package for each, with accepted formats, decoding, preprocessing, collating, encoders and augmentations.

A new modality is a package with `input.py`, `encoders.py`, `augment.py` and `presets.py` (see `model.modalities.branch.Presets`),
where useful `near_duplicates.py` and `thumbnail.py`, and an entry in MODALITIES. The table imports nothing heavy, because the
options of the command line are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from polymodal.model.modalities.audio.formats import SUFFIXES as AUDIO_SUFFIXES
from polymodal.model.modalities.image.formats import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from polymodal.model.types import Array, Inputs, InputSpec, Probe, Workload


class Input(Protocol):
    """Converts one modality's bytes to arrays, with the same code in training and serving.

    Numpy only, never torch. Implementations are immutable, and all their methods are pure and thread-safe.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """Names of the files that `save` writes."""
    free_axes: ClassVar[Mapping[str, Mapping[int, str]]]
    """Named axes, by array and position, whose length is that of the longest sample of a batch, such as tokens."""

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Build from a bundle: `settings` is this input's entry in config.json, `folder` holds its files."""

    def settings(self) -> dict[str, Any]:
        """Return what `load` needs in addition to the files; JSON-ready."""

    def save(self, folder: Path) -> None:
        """Write this input's files, if it has any, into a bundle's folder."""

    def describe(self) -> InputSpec:
        """Return accepted media types and limits."""

    def decode(self, content: bytes | str) -> Any:  # noqa: ANN401 — every modality has its own decoded form
        """Validate and decode; None for blank content. Raises InputError."""

    def preprocess(self, decoded: Any) -> Array:  # noqa: ANN401
        """Return the array that `collate` takes."""

    def collate(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Collate B preprocessed arrays into the encoder's arguments by name, with B rows each."""

    @staticmethod
    def workload(content: bytes | bytearray | str) -> Workload:
        """Estimate the work to decode and embed, without doing either; more than 0 for content that is not empty."""

    def probes(self) -> Sequence[Probe]:
        """Return probes that measure how long both take, one for each kind of workload."""

    def blank(self) -> Array:
        """Return the smallest valid preprocessed array, for tracing graphs and warming up."""


@dataclass(frozen=True, slots=True)
class Modality:
    """An entry of MODALITIES: everything that other modules need about a kind of input."""

    name: str
    noun: str
    """With an article, for sentences: "an image"."""
    common_noun: str
    """Word for it in texts for end users, without an article."""
    textual: bool
    """Whether an input is text (a string in JSON, a cell in a manifest) or the bytes of a file."""
    max_bytes: int
    """Bytes of one input that a service accepts by default."""
    media_range: str
    """Media type of its field in a form, such as image/*."""
    package: str
    """Package of its modules, which are imported on use because they need numpy or torch."""
    encoders: str
    """Names of its encoders, for CLI help."""
    augmentation: str
    """Effect of augmentation, for CLI help."""
    example: str = ""
    """Short example input in JSON, for OpenAPI."""
    suffixes: frozenset[str] = frozenset()
    """Suffixes of its files, in lower case with the dot; empty for text."""
    usual_columns: tuple[str, ...] = ()
    """Usual names of its column in other tables, for hints."""
    metadata_columns: tuple[str, ...] = ()
    """Further names of its column in the metadata of a folder of files."""
    extra: str = ""
    """Extra of pyproject.toml with its decoders; empty where every installation has them."""
    embedded: bool = True
    """Whether the embedded model takes it: others have examples of their own in OpenAPI."""
    always_digested: bool = False
    """Whether rows without it have its cells in the data digest too. False for modalities that were added later, so that digests
    of older data sets don't change."""

    @property
    def input(self) -> type[Input]:
        """Import the class that decodes, preprocesses and collates."""
        input_type: type[Input] = self.module("input").INPUT
        return input_type

    def module(self, name: str) -> ModuleType:
        """Import one of the package's modules: input, encoders, augment or presets."""
        return import_module(f"{self.package}.{name}")

    def optional_module(self, name: str) -> ModuleType | None:
        """Import an optional module; None if this modality has none.

        `near_duplicates` has `fingerprint(array)` of a preprocessed input, and `first_near_duplicates(known, others)` of
        fingerprints; `thumbnail` has `thumbnail(content, side)`, which returns a small input for people to look at, and MEDIA_TYPE.
        """
        return self.module(name) if find_spec(f"{self.package}.{name}") else None


_PACKAGE: Final = "polymodal.model.modalities"

_PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)

_SILENCE: Final = "data:audio/wav;base64,UklGRogAAABXQVZFZm10IBAAAAABAAEA6AMAAOgDAAABAAgAZGF0YWQAAACA" + 33 * "gICA"
"""A tenth of a second of silence: the shortest sound that is accepted, at the lowest rate."""

MODALITIES: Final[dict[str, Modality]] = {
    modality.name: modality
    for modality in (
        Modality(
            name="image",
            noun="an image",
            common_noun="picture",
            textual=False,
            max_bytes=10 * 2**20,
            media_range="image/*",
            package=f"{_PACKAGE}.image",
            encoders="cnn, efficientnet-lite0 … lite4",
            augmentation="images moved and recoloured",
            example=_PIXEL,
            suffixes=frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes),
            usual_columns=("file", "filename", "path", "img", "picture", "photo", "url"),
            always_digested=True,
        ),
        Modality(
            name="text",
            noun="a text",
            common_noun="text",
            textual=True,
            max_bytes=256 * 2**10,
            media_range="text/plain",
            package=f"{_PACKAGE}.text",
            encoders="static, lstm, gru, transformer",
            augmentation="words left out",
            example="a small boat on a lake",
            usual_columns=("caption", "title", "description", "sentence", "words", "body", "content"),
            metadata_columns=("caption",),
            always_digested=True,
        ),
        Modality(
            name="audio",
            noun="a sound",
            common_noun="recording",
            textual=False,
            max_bytes=20_000_000,  # ten minutes of 16 bits at 16 kHz
            media_range="audio/*",
            package=f"{_PACKAGE}.audio",
            encoders="cnn, yamnet",
            augmentation="sounds changed in level, shifted and masked",
            example=_SILENCE,
            suffixes=frozenset(suffix for suffixes in AUDIO_SUFFIXES.values() for suffix in suffixes),
            usual_columns=("sound", "recording", "wav", "clip"),
            extra="audio",
            embedded=False,
        ),
    )
}
"""By name, in the order of listings for users. Everything that depends on the kinds of inputs is derived from this table."""

RECORDING: Final = MODALITIES["audio"]
"""What speech recognisers take."""


def workload(inputs: Inputs) -> dict[str, float]:
    """Estimate the work to decode and embed an item, by kind of workload. Takes microseconds."""
    return dict(MODALITIES[name].input.workload(content) for name, content in inputs.items() if name in MODALITIES)


def prepare(inputs: Mapping[str, Input], contents: Inputs) -> dict[str, Array]:
    """Decode and preprocess the contents of one item, by modality, in the order of `inputs`, without blank ones.

    Serving and training share this function, so that a network gets the same arrays in both. Raises InputError.
    """
    decoded = {name: entry.decode(_immutable(contents[name])) for name, entry in inputs.items() if name in contents}
    return {name: inputs[name].preprocess(content) for name, content in decoded.items() if content is not None}


def _immutable(content: bytes | bytearray | str) -> bytes | str:
    return bytes(content) if isinstance(content, bytearray) else content
