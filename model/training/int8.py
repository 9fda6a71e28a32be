"""Select encoders in 8 bits for a bundle: the fastest that pass an agreement gate on the validation split.

A set of graphs passes if, for every set of modalities, the metric that training monitors (accuracy, mean average precision, R²)
falls by at most 0.005 against float32, the calibration error rises by at most 0.01, and the negative log-likelihood, which is more
sensitive, by at most 0.02 nats. The report has all attempts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from polymodal.model.bundle import INT8, Bundle, decompress_weights, encoder_weights, head_weights
from polymodal.model.calibration import COVERAGE
from polymodal.model.config import BundleConfig
from polymodal.model.kinds.network import Network
from polymodal.model.network import MultimodalClassifier
from polymodal.model.progress import console
from polymodal.model.runtimes import Runtime
from polymodal.model.runtimes.onnx_int8_runtime import NAME, in_8_bits
from polymodal.model.runtimes.onnx_runtime import HEAD, OnnxRuntime, open_session
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
RANGE_PICTURES: Final = 200
"""Examples of the train split for measuring the ranges of activations."""
FIRST_IN_FLOAT: Final = (0, 1, 3, 5)
"""Numbers of first convolutions that stay float32, in the order of attempts."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute an encoder, made on demand."""

    what: str
    """Name for the report."""
    make: Callable[[], bytes] | None = None
    """The graph in 8 bits; None for float32."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """Graphs in 8 bits of a bundle."""

    graphs: Mapping[str, bytes]
    """By the name of their file in onnx/; empty if none passed."""
    runtime: Runtime
    """Runtime that executes them, and the others in float32."""
    report: Mapping[str, Any]
    """Choice for each encoder, tolerances, metrics next to those of float32, and attempts."""

    def replayed(self, golden: list[dict[str, Any]], draft: Bundle) -> list[dict[str, Any]]:
        """Add this runtime's predictions to golden inputs."""
        if not self.graphs:
            return golden
        predictor = Network(draft, self.runtime)
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
    """Try graphs in 8 bits on the validation split, first all at once; measure the selected ones on `splits` too.

    `stored` and `graphs` are the bundle's, in float32. A modality without validation rows stays in float32.
    """
    network = network.cpu().eval()
    validation = examples.split("validation")
    measured = {name for name in config.network.order if any(map(examples.stores[name].has, validation))}
    candidates = {
        name: (
            *(
                _candidates(name, network, encoder_weights(stored, name), graphs[name], examples)
                if name in measured
                else ()
            ),
            Candidate("float32"),
        )
        for name in config.network.order
    }
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
    chosen = np.random.default_rng(0).permutation(len(rows))[:RANGE_PICTURES]
    batches = [examples.collate(name, [rows[index]]) for index in chosen.tolist()]

    @cache
    def traced() -> onnx.ModelProto:
        feed, free = encoder_feed(examples.inputs[name])
        return trace(network.encoders[name], feed, list(feed), free, optimize=True)

    def make(in_float: int) -> bytes:
        return convolutions_in_8_bits(traced(), batches, in_float=in_float, unused=stored.keys())

    for in_float in FIRST_IN_FLOAT:
        if in_float < count:
            words = "int8 convolutions" + (f" but the first {in_float}" if in_float else "")
            yield Candidate(words, partial(make, in_float))


class _Gate:
    """Computes embeddings once for each candidate, and metrics of any combination of them."""

    def __init__(
        self,
        config: BundleConfig,
        stored: Mapping[str, Array],
        graphs: Mapping[str, bytes],
        examples: Examples,
        threads: int,
    ) -> None:
        self._config = config
        self._stored = stored
        self._graphs = graphs
        self._examples = examples
        self._threads = threads
        self._opened: dict[tuple[str, str], tuple[bytes | None, ort.InferenceSession]] = {}
        self._embedded: dict[tuple[str, str, str], FloatArray] = {}
        self._head = open_session(graphs[HEAD], decompress_weights(head_weights(stored)), threads)

    def decide(self, candidates: Mapping[str, tuple[Candidate, ...]], splits: Sequence[str]) -> Quantised:
        """Return the first combination that passes; float32 alone always does."""
        order, in_float = self._config.network.order, {name: entry[-1] for name, entry in candidates.items()}
        reference = self._figures(in_float, "validation")
        tried = []
        for chosen in _by_speed(candidates):
            figures = self._figures(chosen, "validation")
            passed = all(_passes(figures[key], reference[key]) for key in reference)
            tried.append({"encoders": _words(chosen), "passed": passed, "validation": figures})
            if passed:
                break
        opened = {name: self._open(name, candidate) for name, candidate in chosen.items()}
        sessions = {name: session for name, (_, session) in opened.items()}
        return Quantised(
            {name + INT8: graph for name, (graph, _) in opened.items() if graph is not None},
            OnnxRuntime({**sessions, HEAD: self._head}, order, NAME),
            {
                "encoders": _words(chosen),
                "tolerance": _tolerances(next(iter(reference.values()))),
                "metrics": {
                    split: {"float32": self._figures(in_float, split), "int8": self._figures(chosen, split)}
                    for split in ("validation", *splits)
                },
                "tried": tried,
            },
        )

    def _open(self, name: str, candidate: Candidate) -> tuple[bytes | None, ort.InferenceSession]:
        key = (name, candidate.what)
        if key not in self._opened:
            stored, graph = encoder_weights(self._stored, name), None
            if candidate.make is None:
                session = open_session(self._graphs[name], decompress_weights(stored), self._threads)
            else:
                console.print(f"{name}: {candidate.what} …")
                graph = candidate.make()
                session = open_session(graph, in_8_bits(stored), self._threads)
            self._opened[key] = graph, session
        return self._opened[key]

    def _embeddings(self, name: str, candidate: Candidate, split: str) -> FloatArray:
        key = (name, candidate.what, split)
        if key not in self._embedded:
            runtime = OnnxRuntime({name: self._open(name, candidate)[1]}, (name,))
            width, rows = self._config.network.width, self._examples.split(split)
            self._embedded[key] = evaluate.encode(runtime, self._examples, rows, name, width)
        return self._embedded[key]

    def _figures(self, chosen: Mapping[str, Candidate], split: str) -> dict[str, dict[str, float]]:
        """Return the metrics of the gate, by set of modalities that some row of the split has."""
        network, rows = self._config.network, self._examples.split(split)
        embeddings = {name: self._embeddings(name, candidate, split) for name, candidate in chosen.items()}
        head = OnnxRuntime({HEAD: self._head}, network.order)
        answers = evaluate.predict_from_embeddings(head, embeddings, self._examples, rows, network)
        return {key: self._figures_of(entry) for key, entry in answers.items()}

    def _figures_of(self, answers: Answers) -> dict[str, float]:
        target = TARGETS[self._config.network.target].scoring.of(self._config)
        targets = self._examples.targets[answers.rows]
        metrics = target.metrics(target.scores(answers.logits, answers.used), targets)
        error = metrics.get("calibration_error")
        if error is None:  # intervals should hold numbers with the probability COVERAGE
            error = max(0.0, COVERAGE - (metrics["coverage"] or 0.0))
        figures = {target.watched: target.monitor(answers.logits, targets), CALIBRATION: float(error)}
        likelihood = metrics.get("negative_log_likelihood")  # a number has none
        return figures if likelihood is None else {**figures, LIKELIHOOD: likelihood}


def _words(chosen: Mapping[str, Candidate]) -> dict[str, str]:
    return {name: entry.what for name, entry in chosen.items()}


def _by_speed(candidates: Mapping[str, tuple[Candidate, ...]]) -> Iterator[dict[str, Candidate]]:
    """Yield every combination: those with fewer encoders in float32 first, then those with earlier candidates."""

    def slowness(places: tuple[int, ...]) -> tuple[int, int]:
        chosen = zip(candidates.values(), places, strict=True)
        return sum(entry[place].make is None for entry, place in chosen), sum(places)

    for places in sorted(product(*(range(len(entry)) for entry in candidates.values())), key=slowness):
        yield {name: entry[place] for (name, entry), place in zip(candidates.items(), places, strict=True)}


def _tolerances(figures: Iterable[str]) -> dict[str, float]:
    errors = {CALIBRATION: CALIBRATION_LOSS, LIKELIHOOD: LIKELIHOOD_LOSS}
    return {what: errors.get(what, LOSS) for what in figures}


def _passes(figures: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    """Return whether the monitored metric, which is first, falls and the errors rise by no more than their tolerances."""
    watched = next(iter(reference))
    lost = {what: figures[what] - reference[what] for what in reference}
    lost[watched] = -lost[watched]
    return all(lost[what] <= allowed for what, allowed in _tolerances(reference).items())
