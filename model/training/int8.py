"""Select encoders in 8 bits for a bundle: the fastest ones whose metrics on the validation split are close to float32.

A set of graphs passes if, for every set of modalities, the metric that training monitors (accuracy, mean average precision, R²)
falls by at most 0.005 against float32, the calibration error rises by at most 0.01, and the negative log-likelihood, which is more
sensitive, by at most 0.02 nats. The report has all attempts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from polymodal.model.bundle import INT8, Bundle, decompress_weights, graph_weights
from polymodal.model.calibration import COVERAGE
from polymodal.model.config import HEAD, BundleConfig
from polymodal.model.kinds.network import Network
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import console
from polymodal.model.runtimes import Runtime
from polymodal.model.runtimes.onnx_int8_runtime import NAME, in_8_bits
from polymodal.model.runtimes.onnx_runtime import OnnxRuntime, open_session
from polymodal.model.targets import TARGETS
from polymodal.model.training import evaluate
from polymodal.model.training.evaluate import Answers
from polymodal.model.training.examples import Examples
from polymodal.model.training.export import encoder_feed, trace
from polymodal.model.training.quantise import convolutions, convolutions_in_8_bits, matrices_in_8_bits
from polymodal.model.types import Array, FloatArray

CALIBRATION: Final = "calibration"
LIKELIHOOD: Final = "negative log-likelihood"
LOSS: Final = 0.005
"""Largest fall of the metric that training monitors."""
CALIBRATION_LOSS: Final = 0.01
"""Largest rise of the calibration error, or of the share of numbers outside their intervals."""
LIKELIHOOD_LOSS: Final = 0.02
"""Largest rise of the mean negative log-likelihood, in nats."""
RANGE_EXAMPLES: Final = 200
"""Number of examples of the train split from which the ranges of activations are measured."""
FIRST_IN_FLOAT: Final = (0, 1, 3, 5)
"""How many of the first convolutions stay float32, in the order of attempts."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute an encoder."""

    name: str
    """Name in the report."""
    make: Callable[[], bytes] | None = None
    """Returns the graph in 8 bits; None for float32."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """Selected graphs in 8 bits of a bundle."""

    graphs: Mapping[str, bytes]
    """By the name of their file in onnx/; empty if none passed."""
    runtime: Runtime
    """Runtime that executes them, and the other encoders in float32."""
    report: Mapping[str, Any]
    """Selected candidates, tolerances, metrics with those of float32, and attempts."""

    def replayed(self, golden: list[dict[str, Any]], bundle: Bundle) -> list[dict[str, Any]]:
        """Return golden inputs with this runtime's predictions added."""
        if not self.graphs:
            return golden
        predictor = Network(bundle, self.runtime)
        return [{**entry, NAME: predictor.target.golden(predictor.predict_golden(entry))} for entry in golden]


def quantise(
    network: MultimodalClassifier,
    config: BundleConfig,
    stored: Mapping[str, Array],
    graphs: Mapping[str, bytes],
    examples: Examples,
    *,
    splits: Sequence[str] = (),
    threads: int,
) -> Quantised:
    """Try graphs in 8 bits on the validation split, the fastest combination first; measure the selected ones on `splits` too.

    `stored` has the weights as the bundle stores them, `graphs` its graphs in float32. A modality without validation rows stays
    in float32.
    """
    network = network.cpu().eval()
    validation = examples.split("validation")
    candidates: dict[str, tuple[Candidate, ...]] = {}
    for name in config.network.order:
        measurable = any(map(examples.stores[name].has, validation))
        weights = graph_weights(stored, name)
        quantised = _candidates(name, network, weights, graphs[name], examples) if measurable else ()
        candidates[name] = (*quantised, Candidate("float32"))
    return _Gate(config, stored, graphs, examples, threads).decide(candidates, splits)


def _candidates(
    name: str, network: MultimodalClassifier, stored: Mapping[str, Array], graph: bytes, examples: Examples
) -> Iterator[Candidate]:
    """Return ways to compute one encoder in 8 bits, fastest first."""
    count = convolutions(graph)
    if count <= 1:  # a transformer cuts an image into patches with one
        if (made := matrices_in_8_bits(graph, stored)) is not None:
            yield Candidate("int8 matrices", lambda: made)
        return
    rows = [row for row in examples.split("train") if examples.stores[name].has(row)]
    chosen = np.random.default_rng(0).permutation(len(rows))[:RANGE_EXAMPLES]
    batches = [examples.collate(name, [rows[index]]) for index in chosen.tolist()]

    @cache
    def traced() -> onnx.ModelProto:
        feed, free = encoder_feed(examples.inputs[name])
        return trace(network.encoders[name], feed, list(feed), free, optimize=True)

    def make(in_float: int) -> bytes:
        return convolutions_in_8_bits(traced(), batches, in_float=in_float, unused=stored.keys())

    for in_float in FIRST_IN_FLOAT:
        if in_float < count:
            title = "int8 convolutions" + (f" but the first {in_float}" if in_float else "")
            yield Candidate(title, partial(make, in_float))


@dataclass(slots=True)
class _Gate:
    """Computes the metrics of combinations of candidates; each candidate's embeddings are computed once."""

    config: BundleConfig
    stored: Mapping[str, Array]
    graphs: Mapping[str, bytes]
    examples: Examples
    threads: int
    head: ort.InferenceSession = field(init=False)
    opened: dict[tuple[str, str], tuple[bytes | None, ort.InferenceSession]] = field(default_factory=dict)
    embedded: dict[tuple[str, str, str], FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.head = open_session(self.graphs[HEAD], decompress_weights(graph_weights(self.stored, HEAD)), self.threads)

    def decide(self, candidates: Mapping[str, tuple[Candidate, ...]], splits: Sequence[str]) -> Quantised:
        """Return the first combination that passes; float32 for all encoders always does."""
        float32 = {name: entry[-1] for name, entry in candidates.items()}
        reference = self._metrics(float32, "validation")
        tried = []
        for chosen in _by_speed(candidates):
            figures = self._metrics(chosen, "validation")
            passed = all(_passes(figures[key], reference[key]) for key in reference)
            tried.append({"encoders": _names(chosen), "passed": passed, "validation": figures})
            if passed:
                break
        opened = {name: self._open(name, candidate) for name, candidate in chosen.items()}
        sessions = {name: session for name, (_, session) in opened.items()}
        return Quantised(
            {name + INT8: graph for name, (graph, _) in opened.items() if graph is not None},
            OnnxRuntime({**sessions, HEAD: self.head}, self.config.network.order, NAME),
            {
                "encoders": _names(chosen),
                "tolerance": _tolerances(next(iter(reference.values()))),
                "metrics": {
                    split: {"float32": self._metrics(float32, split), "int8": self._metrics(chosen, split)}
                    for split in ("validation", *splits)
                },
                "tried": tried,
            },
        )

    def _open(self, name: str, candidate: Candidate) -> tuple[bytes | None, ort.InferenceSession]:
        key = (name, candidate.name)
        if key not in self.opened:
            stored, graph = graph_weights(self.stored, name), None
            if candidate.make is None:
                session = open_session(self.graphs[name], decompress_weights(stored), self.threads)
            else:
                console.print(f"{name}: {candidate.name} …")
                graph = candidate.make()
                session = open_session(graph, in_8_bits(stored), self.threads)
            self.opened[key] = graph, session
        return self.opened[key]

    def _embeddings(self, name: str, candidate: Candidate, split: str) -> FloatArray:
        key = (name, candidate.name, split)
        if key not in self.embedded:
            runtime = OnnxRuntime({name: self._open(name, candidate)[1]}, (name,))
            width, rows = self.config.network.width, self.examples.split(split)
            self.embedded[key] = evaluate.encode(runtime, self.examples, rows, name, width)
        return self.embedded[key]

    def _metrics(self, chosen: Mapping[str, Candidate], split: str) -> dict[str, dict[str, float]]:
        """Return the compared metrics by set of modalities that some row of the split has."""
        network, rows = self.config.network, self.examples.split(split)
        embeddings = {name: self._embeddings(name, candidate, split) for name, candidate in chosen.items()}
        head = OnnxRuntime({HEAD: self.head}, network.order)
        answers = evaluate.predict_from_embeddings(head, embeddings, self.examples, rows, network)
        return {key: self._compared_metrics(entry) for key, entry in answers.items()}

    def _compared_metrics(self, answers: Answers) -> dict[str, float]:
        target = TARGETS[self.config.network.target].scoring.of(self.config)
        targets = self.examples.targets[answers.rows]
        metrics = target.metrics(target.scores(answers.logits, answers.used), targets)
        error = metrics.get("calibration_error")
        if error is None:  # a regression, whose intervals should contain numbers with the probability COVERAGE
            error = max(0.0, COVERAGE - (metrics["coverage"] or 0.0))
        figures = {target.watched: target.monitor(answers.logits, targets), CALIBRATION: float(error)}
        likelihood = metrics.get("negative_log_likelihood")  # regressions have none
        return figures if likelihood is None else {**figures, LIKELIHOOD: likelihood}


def _names(chosen: Mapping[str, Candidate]) -> dict[str, str]:
    return {name: entry.name for name, entry in chosen.items()}


def _by_speed(candidates: Mapping[str, tuple[Candidate, ...]]) -> Iterator[dict[str, Candidate]]:
    """Yield every combination: first those with fewer encoders in float32, among these those with earlier candidates."""

    def slowness(combination: tuple[tuple[int, Candidate], ...]) -> tuple[int, int]:
        return sum(entry.make is None for _, entry in combination), sum(place for place, _ in combination)

    for combination in sorted(product(*map(enumerate, candidates.values())), key=slowness):
        yield dict(zip(candidates, (entry for _, entry in combination), strict=True))


def _tolerances(figures: Iterable[str]) -> dict[str, float]:
    errors = {CALIBRATION: CALIBRATION_LOSS, LIKELIHOOD: LIKELIHOOD_LOSS}
    return {name: errors.get(name, LOSS) for name in figures}


def _passes(figures: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    """Return whether the fall of the first metric, which training monitors, and the rise of the errors are tolerable."""
    monitored = next(iter(reference))
    losses = {name: figures[name] - reference[name] for name in reference}
    losses[monitored] = -losses[monitored]
    return all(losses[name] <= allowed for name, allowed in _tolerances(reference).items())
