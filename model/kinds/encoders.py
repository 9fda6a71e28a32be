"""The model kind `encoders`: prepares inputs of an item as a Sample, and computes their vectors in one space.

B examples, E numbers of an embedding, V width of a vector.
"""

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from polymodal.cores import available_cpus
from polymodal.model.bundle import AnyBundle, Config, read_kind
from polymodal.model.capabilities import Capability, Space
from polymodal.model.config import EncodersConfig
from polymodal.model.errors import BundleError, InputError, NothingGiven, UnknownModality
from polymodal.model.modalities import MODALITIES, prepare
from polymodal.model.runtimes import Runtime, start_runtime, suitable
from polymodal.model.stages import Stages, encoding
from polymodal.model.types import Description, FloatArray, Inputs, Probe, Sample

# Largest deviation of a replayed golden input: of a score, of a number in standard deviations, or of a vector of length 1 (by the
# length of the difference). Runtimes differ by about 1e-5; decoders and resizing of different Pillow releases by a little more; a
# wrong weight, vocabulary or label order by far more.
GOLDEN_TOLERANCE: Final = 0.02

log = logging.getLogger(__name__)


class Encoders:
    """A bundle with the runtime that executes it: encoders of several modalities into one space.

    `prepare` is pure, and both it and `embed` are thread-safe. Another kind that begins with encoders is a subclass: it replaces
    `vectors`, `deviation` and `compute`.
    """

    def __init__(
        self,
        bundle: AnyBundle[Any],
        runtime: Runtime,
        description: Description,
        encoded: int,
        fallback: Callable[[], Runtime] | None = None,
    ) -> None:
        """`encoded`: E, the numbers that an encoder computes from an input."""
        self._bundle = bundle
        self._runtime = runtime
        self._fallback = fallback
        self._inputs = bundle.inputs
        self._order = bundle.config.order
        self._encoded = encoded
        self.description = description

    def prepare(self, inputs: Inputs, kept: Mapping[str, bytes] | None = None) -> Sample:
        """Decode and preprocess the inputs of one item, by modality; a blank text counts as absent.

        `kept` has cached embeddings by modality, float32 (E,) as bytes, in place of inputs. Raises InputError.
        """
        known = ", ".join(self._order)
        embeddings = {name: np.frombuffer(vector, dtype=np.float32) for name, vector in (kept or {}).items()}
        if unknown := sorted(set(inputs) - set(self._order)):
            raise UnknownModality(unknown[0], "not an input of this model", known)
        arrays = prepare(self._inputs, inputs)
        if not arrays and not embeddings:
            if len(self._order) == 1:
                raise NothingGiven("request", f"no {known}, or a blank one", known)
            raise NothingGiven("request", "neither of the inputs, or only blank ones", f"at least one of {known}")
        return Sample(arrays, embeddings)

    def embed(self, samples: Sequence[Sample], stages: Stages | None = None) -> dict[str, FloatArray]:
        """Return embeddings (B, E) of every modality; rows of samples without the modality are zero."""
        stages, embeddings = stages or Stages(), {}
        for name in self._order:
            with stages.measure(encoding(name)):
                embeddings[name] = self.encode(name, samples)
        return embeddings

    def encode(self, modality: str, samples: Sequence[Sample]) -> FloatArray:
        """Return one modality's embeddings (B, E): computed, or cached, or zero for rows without the modality.

        Arrays of one shape are computed together, so that no text is padded: an input has the same numbers in every batch.
        """
        embeddings = np.zeros((len(samples), self._encoded), dtype=np.float32)
        rows_by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, sample in enumerate(samples):
            if modality in sample.arrays:
                rows_by_shape.setdefault(sample.arrays[modality].shape, []).append(row)
        for rows in rows_by_shape.values():
            batch = self._inputs[modality].collate([samples[row].arrays[modality] for row in rows])
            embeddings[rows] = self._runtime.encode(modality, batch)
        for row, sample in enumerate(samples):
            if modality in sample.embeddings:
                embeddings[row] = sample.embeddings[modality]
        return embeddings

    def vectors(self, embeddings: Mapping[str, FloatArray], space: str) -> dict[str, FloatArray]:
        """Return embeddings (B, V) as they are: they are the vectors of the only space."""
        return dict(embeddings)

    def probes(self, task: str = "") -> dict[str, Sequence[Probe]]:
        """Return inputs for measuring each modality's kinds of workload; the same for every task."""
        return self._probes

    @cached_property
    def _probes(self) -> dict[str, Sequence[Probe]]:
        return {name: entry.probes() for name, entry in self._inputs.items()}

    def warm_up(self) -> None:
        """Run every graph once and replay the bundle's golden inputs.

        If the runtime fails the golden inputs and the bundle suits another one, switch to that: arithmetic in 8 bits overflows
        on some processors. Raises BundleError when no runtime passes.
        """
        try:
            self._replay()
        except BundleError as problem:
            if self._fallback is None:
                raise
            self._runtime, self._fallback = self._fallback(), None
            log.warning("runtime %s is not used: %s", self.description.runtime, problem)
            self.description = replace(self.description, runtime=self._runtime.name)
            self._replay()

    def compute(self, samples: Sequence[Sample]) -> object:
        """Run every graph that these samples need."""
        return self.embed(samples)

    def deviation(self, golden: Mapping[str, Any]) -> float:
        """Return how far the vectors of an entry of golden.json are from the recorded ones, which have length 1."""
        sample = self.prepare(golden_inputs(golden))
        recorded: Mapping[str, Sequence[float]] = golden["vectors"]
        if set(recorded) != sample.present:
            raise ValueError(f"vectors of {', '.join(recorded)}; inputs: {', '.join(sorted(sample.present))}")
        rows = self.vectors(self.embed([sample]), Space.ALIGNED)
        return max(
            float(np.linalg.norm(rows[name][0] / np.linalg.norm(rows[name][0]) - np.asarray(vector)))
            for name, vector in recorded.items()
        )

    def _replay(self) -> None:
        blanks = {name: entry.blank() for name, entry in self._inputs.items()}
        self.compute([*(Sample({name: array}) for name, array in blanks.items()), Sample(blanks)])
        for number, golden in enumerate(self._bundle.golden, start=1):
            try:
                deviation = self.deviation(golden)
            except (InputError, AttributeError, LookupError, TypeError, ValueError) as problem:
                raise BundleError(
                    f"{self._bundle.directory}: golden input {number} cannot be replayed: {problem}"
                ) from problem
            if not deviation <= GOLDEN_TOLERANCE:  # written so that NaN fails too
                raise BundleError(
                    f"{self._bundle.directory}: golden input {number} is {deviation:.3f} away from what the bundle recorded; "
                    f"allowed: {GOLDEN_TOLERANCE} (runtime {self.description.runtime})"
                )


def golden_inputs(golden: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Return the inputs of an entry of golden.json, which has texts as they are and other inputs in base64."""
    encoded: Mapping[str, str] = golden["parts"]
    return {name: text if MODALITIES[name].textual else base64.b64decode(text) for name, text in encoded.items()}


def described(bundle: AnyBundle[Any], runtime: Runtime, name: str | None, **of_kind: Any) -> Description:  # noqa: ANN401
    """Return the description of a loaded bundle; `of_kind` has the fields that depend on its kind."""
    return Description(
        name=name or bundle.config.name,
        digest=bundle.digest,
        inputs=tuple(entry.describe() for entry in bundle.inputs.values()),
        runtime=runtime.name,
        card=bundle.card,
        report=bundle.report,
        kind=bundle.config.kind,
        matches=bundle.config.matches or {},
        **of_kind,
    )


Built = TypeVar("Built", bound=Encoders)


def load(
    build: Callable[[AnyBundle[Config], Runtime, str | None, Callable[[], Runtime] | None], Built],
    config_type: type[Config],
    directory: Path,
    name: str | None,
    runtime: str,
    threads: int | None,
) -> Built:
    """Open a bundle of one kind, start its runtime, and build its model; see `model.kinds.load_bundle`."""
    bundle, threads = read_kind(directory, config_type), threads or available_cpus()
    first, *others = suitable(bundle) if runtime == "auto" else (runtime,)
    fallback = partial(start_runtime, others[0], bundle, threads) if others else None
    return build(bundle, start_runtime(first, bundle, threads), name, fallback)


def load_encoders(
    directory: Path, name: str | None = None, runtime: str = "auto", threads: int | None = None
) -> Encoders:
    """Open a bundle of encoders; see `model.kinds.load_bundle`."""
    return load(_encoders, EncodersConfig, directory, name, runtime, threads)


def _encoders(
    bundle: AnyBundle[EncodersConfig], runtime: Runtime, name: str | None, fallback: Callable[[], Runtime] | None
) -> Encoders:
    config = bundle.config
    description = described(
        bundle,
        runtime,
        name,
        target="",
        labels=(),
        capabilities=frozenset({Capability.EMBEDS}),
        spaces={Space.ALIGNED.value: config.width},
    )
    return Encoders(bundle, runtime, description, config.width, fallback)
