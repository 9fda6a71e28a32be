"""Which encoders a bundle also ships in 8 bits: the quickest that pass an agreement gate on the validation part.

A set of graphs passes when, for every set of modalities, the figure that training watches (accuracy, mean average precision, R²)
falls by at most 0.005 against float32, the calibration error rises by at most 0.01, and the negative log-likelihood, which notices
what no single answer shows yet, by at most 0.02 nats. What was tried is part of the report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from model.bundle import INT8, Bundle, behind, below, widen
from model.calibration import COVERAGE
from model.config import BundleConfig
from model.network import MultimodalClassifier
from model.predictor import Predictor
from model.runtimes import Runtime
from model.runtimes.onnx_int8_runtime import NAME, in_8_bits
from model.runtimes.onnx_runtime import HEAD, OnnxRuntime, open_session
from model.tasks import TASKS
from model.training import evaluate
from model.training.evaluate import Answers
from model.training.examples import Examples
from model.training.export import encoder_feed, trace
from model.training.progress import console
from model.training.quantise import convolutions, convolutions_in_8_bits, matrices_in_8_bits
from model.types import Array, FloatArray

CALIBRATION: Final = "calibration"
LIKELIHOOD: Final = "negative log-likelihood"
LOSS: Final = 0.005
"""By how much what training watches may fall."""
CALIBRATION_LOSS: Final = 0.01
"""By how much the calibration error may rise, or the share of numbers outside their intervals."""
LIKELIHOOD_LOSS: Final = 0.02
"""By how many nats the mean negative log-likelihood of what is true may rise."""
RANGE_PICTURES: Final = 200
"""Of the training part, that tell the ranges of what flows between convolutions."""
FIRST_IN_FLOAT: Final = (0, 1, 3, 5)
"""How many of a network's first convolutions stay float32, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute an encoder, made when its turn comes."""

    what: str
    """In words, for the report."""
    make: Callable[[], bytes] | None = None
    """The graph in 8 bits; None for float32."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What of a bundle computes in 8 bits."""

    graphs: Mapping[str, bytes]
    """By the name of their file in onnx/; without any, nothing passed."""
    runtime: Runtime
    """Executes them, with float32 for the rest."""
    report: Mapping[str, Any]
    """What each encoder became, tolerances, figures beside those of float32, and what was tried."""

    def replayed(self, golden: list[dict[str, Any]], draft: Bundle) -> list[dict[str, Any]]:
        """Golden inputs with what this runtime says of them too."""
        if not self.graphs:
            return golden
        predictor = Predictor(draft, self.runtime)
        return [{**each, NAME: predictor.task.golden(predictor.ask_golden(each))} for each in golden]


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
    """Try graphs in 8 bits on the validation part, as many at once as there are first; measure what passed on `splits` too.

    `stored` and `graphs` are what the bundle holds, in float32. A modality that no validation row has stays in float32.
    """
    network = network.cpu().eval()
    validation = examples.split("validation")
    measured = {name for name in config.network.order if any(map(examples.stores[name].has, validation))}
    candidates = {
        name: (
            *(_candidates(name, network, below(stored, name), graphs[name], examples) if name in measured else ()),
            Candidate("float32"),
        )
        for name in config.network.order
    }
    return _Gate(config, stored, graphs, examples, threads).decide(candidates, splits)


def _candidates(
    name: str, network: MultimodalClassifier, stored: Mapping[str, Array], graph: bytes, examples: Examples
) -> Iterator[Candidate]:
    """Ways to compute one encoder in 8 bits, the quickest first."""
    count = convolutions(graph)
    if count <= 1:  # one is how a transformer cuts a picture into patches
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
    """Computes embeddings once for each candidate, and answers from any combination of them."""

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
        self._head = open_session(graphs[HEAD], widen(behind(stored)), threads)

    def decide(self, candidates: Mapping[str, tuple[Candidate, ...]], splits: Sequence[str]) -> Quantised:
        """The first combination that passes; float32 alone always does."""
        order, in_float = self._config.network.order, {name: each[-1] for name, each in candidates.items()}
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
            stored, graph = below(self._stored, name), None
            if candidate.make is None:
                session = open_session(self._graphs[name], widen(stored), self._threads)
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
        """What the gate looks at, by set of modalities that some row of the part has."""
        network, rows = self._config.network, self._examples.split(split)
        embeddings = {name: self._embeddings(name, candidate, split) for name, candidate in chosen.items()}
        head = OnnxRuntime({HEAD: self._head}, network.order)
        answers = evaluate.answer_all(head, embeddings, self._examples, rows, network)
        return {key: self._figures_of(each) for key, each in answers.items()}

    def _figures_of(self, answers: Answers) -> dict[str, float]:
        task = TASKS[self._config.network.task].of(self._config)
        targets = self._examples.targets[answers.rows]
        told = task.metrics(task.scores(answers.logits, answers.used), targets)
        error = told.get("calibration_error")
        if error is None:  # a number's interval is to hold it with the probability COVERAGE
            error = max(0.0, COVERAGE - (told["coverage"] or 0.0))
        figures = {task.watched: task.watch(answers.logits, targets), CALIBRATION: float(error)}
        likelihood = told.get("negative_log_likelihood")  # a number has none
        return figures if likelihood is None else {**figures, LIKELIHOOD: likelihood}


def _words(chosen: Mapping[str, Candidate]) -> dict[str, str]:
    return {name: each.what for name, each in chosen.items()}


def _by_speed(candidates: Mapping[str, tuple[Candidate, ...]]) -> Iterator[dict[str, Candidate]]:
    """Every combination: those with fewer encoders in float32 first, then those with earlier candidates."""

    def slowness(places: tuple[int, ...]) -> tuple[int, int]:
        chosen = zip(candidates.values(), places, strict=True)
        return sum(each[place].make is None for each, place in chosen), sum(places)

    for places in sorted(product(*(range(len(each)) for each in candidates.values())), key=slowness):
        yield {name: each[place] for (name, each), place in zip(candidates.items(), places, strict=True)}


def _tolerances(figures: Iterable[str]) -> dict[str, float]:
    errors = {CALIBRATION: CALIBRATION_LOSS, LIKELIHOOD: LIKELIHOOD_LOSS}
    return {what: errors.get(what, LOSS) for what in figures}


def _passes(found: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    """What is watched, which comes first, may fall by no more than its tolerance, and errors may rise by no more than theirs."""
    watched = next(iter(reference))
    lost = {what: found[what] - reference[what] for what in reference}
    lost[watched] = -lost[watched]
    return all(lost[what] <= allowed for what, allowed in _tolerances(reference).items())
