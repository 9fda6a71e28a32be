"""What a bundle's config.json says: architecture, preprocessing, labels, task and calibration; checked when it is read."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT: Final = 1
"""Version of the bundle's layout; a bundle of another version is refused."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Frozen):
    """A network's name in its room's table ENCODERS, and its keyword arguments."""

    name: str
    options: Mapping[str, Any] = {}


class ModalityConfig(_Frozen):
    """One modality: how its input is prepared, and what encodes it."""

    input: Mapping[str, Any]
    encoder: EncoderConfig


class NetworkConfig(_Frozen):
    """Everything that shapes the network; together with the weights it is the network."""

    modalities: Annotated[Mapping[str, ModalityConfig], Field(min_length=1)]
    """By name; the order is the order of the columns of `present`."""
    width: Annotated[int, Field(ge=1)]
    """D: width of every embedding."""
    fusion: str
    """A name in the table FUSIONS."""
    task: Literal["single-label"]
    """A name in the table TASKS."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping one number of the fused embedding, training only."""

    @property
    def order(self) -> tuple[str, ...]:
        """The modalities' names, in the order of the columns of `present`."""
        return tuple(self.modalities)


class BundleConfig(_Frozen):
    """config.json."""

    format: Literal[1] = FORMAT
    name: Name
    network: NetworkConfig
    temperatures: Mapping[str, Annotated[float, Field(gt=0)]]
    """What logits are divided by before the softmax, by set of present modalities, e.g. {"image": 1.4, "image+text": 1.2}."""

    @model_validator(mode="after")
    def _every_subset_has_a_temperature(self) -> "BundleConfig":
        missing = set(subsets(self.network.order)) - set(self.temperatures)
        if missing:
            raise ValueError(f"no temperature for {', '.join(sorted(missing))}")
        return self


def subset_key(present: frozenset[str] | set[str], order: tuple[str, ...]) -> str:
    """How a set of present modalities is written in files: in the network's order, e.g. "image+text"."""
    return "+".join(name for name in order if name in present)


def subsets(order: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of every non-empty set of modalities: first all of them, then smaller ones."""
    masks = range(1, 2 ** len(order))
    keys = (tuple(name for bit, name in enumerate(order) if mask >> bit & 1) for mask in masks)
    return tuple("+".join(names) for names in sorted(keys, key=lambda names: (-len(names), names)))
