"""A whole service in milliseconds: the real Network and its real inputs, with a runtime whose numbers can be worked out by hand."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import hypothesis
import numpy as np
import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from polymodal.app.api import server as server_module
from polymodal.app.api.server import server_for
from polymodal.app.main import create_app
from polymodal.app.settings import IndexSource, Settings
from polymodal.app.workers.engine import Engine
from polymodal.model import Network, answer_one
from polymodal.model.bundle import Bundle
from polymodal.model.config import BundleConfig
from polymodal.model.index import IndexItem, write_index
from polymodal.model.modalities.image.input import ImageInput
from polymodal.model.modalities.text.input import TextInput
from polymodal.model.tasks.embed import Embed, EmbedOptions
from tests import media
from tests.serving import SERVE_TOY, running

hypothesis.settings.register_profile("without-deadline", deadline=None)  # a busy machine exceeds any
hypothesis.settings.load_profile("without-deadline")

LABELS = ("red", "green", "blue")
TASKS = {
    "single-label": {"network": {"labels": LABELS}, "temperatures": {"image": 1.0, "text": 1.0, "image+text": 1.0}},
    "multi-label": {
        "network": {"labels": LABELS},
        "temperatures": {"image": 1.0, "text": 1.0, "image+text": 1.0},
        "thresholds": {"red": 0.8, "green": 0.5, "blue": 0.6},
    },
    # The number is 10 + 2 · red; images alone have no interval.
    "regression": {
        "network": {"labels": (), "scale": {"mean": 10, "std": 2}},
        "half_widths": {"text": 3.0, "image+text": 1.5},
        "fallback": "none",
    },
}
ALIGNED = {
    "image~text": {"slope": 10.0, "intercept": -5.0, "threshold": 0.5},
    "text~text": {"slope": 20.0, "intercept": -10.0, "threshold": 0.5},
    "image~image+text": {"slope": 10.0, "intercept": -6.0, "threshold": 0.4},
}
"""Matches of a toy model whose aligned vectors are those of the classifier; a pair of images has none."""
VOCABULARY = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *LABELS))}


class Arithmetic:
    """A runtime whose embeddings are how red, green and blue something is, and whose logits are their sum.

    Aligned vectors are the same numbers. A test can make it wait; it fails on five reds, and sleeps for a minute on eight blues.
    """

    name = "arithmetic"

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.aligned = False

    def encode(self, modality, batch):
        vectors = self._encode(modality, batch)
        return np.hstack([vectors, vectors]) if self.aligned else vectors

    def _encode(self, modality, batch):
        self.may_go.wait(10)
        if modality == "image":
            return batch["pixels"].mean(axis=(1, 2), dtype=np.float32) / 255
        counts = [(batch["ids"] == VOCABULARY[label]).sum(axis=1) for label in LABELS]
        if counts[LABELS.index("red")].max() >= 5:
            raise RuntimeError("secret: /etc/passwd")
        if counts[LABELS.index("blue")].max() == 8:
            time.sleep(60)
        return np.stack(counts, axis=1, dtype=np.float32)

    def fuse(self, embeddings, present):
        return sum(embeddings.values())


def make_predictor(
    name: str = "toy", runtime: Arithmetic | None = None, task: str = "single-label", *, aligned: bool = False
) -> Network:
    runtime = runtime or Arithmetic()
    runtime.aligned = aligned
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = {"name": "arithmetic", "options": {}}
    config = BundleConfig.model_validate(
        {
            **TASKS[task],
            "name": name,
            "network": {
                **TASKS[task]["network"],
                "modalities": {modality: {"input": {}, "encoder": encoder} for modality in ("image", "text")},
                "width": 3,
                "fusion": "sum",
                "target": task,
                **({"alignment": {"width": len(LABELS)}} if aligned else {}),
            },
            **({"matches": ALIGNED} if aligned else {}),
        }
    )
    inputs = {"image": ImageInput(side=32), "text": TextInput(tokenizer, max_tokens=8)}
    report = {"accuracy": 1.0}
    bundle = Bundle(Path(), config, "ab" * 32, inputs, report, golden=(), card="# Toy")
    return Network(bundle, runtime)


COLOURS = {"a": "red", "b": "red green", "c": "blue"}


def write_toy_index(folder: Path, model: Network | None = None, colours: Mapping[str, str] = COLOURS) -> IndexSource:
    """Write an index of texts by id, whose `shade` is the first word, and return it under the name of its folder."""
    model = model or make_predictor(aligned=True)
    embed, options = Embed(), EmbedOptions(space="aligned", fused=True)
    items = [
        (
            IndexItem(id_, ("text",), {"text": text, "shade": text.split()[0], "words": len(text.split())}),
            np.asarray(answer_one(model, embed, {"text": text}, options).fused, np.float32),
        )
        for id_, text in colours.items()
    ]
    write_index(folder, items, model.description, ("text", "shade", "words"))
    return IndexSource(folder.name, folder)


@pytest.fixture(autouse=True)
def logs():
    """Log entries, as dictionaries, instead of log lines."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


LATENCIES = {}


@pytest.fixture(autouse=True)
def latency_measured_once(monkeypatch):
    """The latency of a toy model takes a tenth of a second: measured for the first service, and not for hundreds of them."""
    measure = Engine._latency

    def latency(engine, ref, task, model, probes):
        if not isinstance(getattr(model, "_runtime", None), Arithmetic):
            return measure(engine, ref, task, model, probes)
        if model.description.target not in LATENCIES:
            LATENCIES[model.description.target] = measure(engine, ref, task, model, probes)
        return LATENCIES[model.description.target]

    monkeypatch.setattr(Engine, "_latency", latency)


@pytest.fixture
def solid():
    """`solid(colour, size=…)`: an image of one colour, as the bytes of a file."""
    return media.solid


@pytest.fixture
def runtime() -> Iterator[Arithmetic]:
    runtime = Arithmetic()
    yield runtime
    runtime.may_go.set()


@pytest.fixture
def predictor(runtime) -> Network:
    return make_predictor(runtime=runtime)


@pytest.fixture
def make():
    """`make(name=…)`: another predictor."""
    return make_predictor


@pytest.fixture
def settings() -> Settings:
    return Settings(workers=0)


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serving(settings, predictor) -> Serving:
    """`async with serving(queue_limit=1) as client`: a started service with some settings changed."""

    def start(predictors: Mapping[str, Network] | None = None, **changed):
        return _client(create_app(settings.model_copy(update=changed), predictors or {"toy": predictor}))

    return start


@pytest.fixture
async def client(serving) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


class Listening:
    """A service behind a real port, in a thread of its own."""

    def __init__(self, app: FastAPI, server: uvicorn.Server, port: int) -> None:
        self.app, self.server, self.port = app, server, port
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
def listening(settings, predictor, monkeypatch):
    """`with listening() as service`: for what only a real connection shows."""
    monkeypatch.setattr(server_module, "LAST_REQUESTS_S", 0.01)

    @contextmanager
    def start(predictors: Mapping[str, Network] | None = None, **changed) -> Iterator[Listening]:
        app = create_app(settings.model_copy(update={"port": 0, **changed}), predictors or {"toy": predictor})
        server = server_for(app)

        async def run() -> None:
            async with app.router.lifespan_context(app):
                await server.serve()

        thread = threading.Thread(target=asyncio.run, args=(run(),))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                thread.join(0.01)
            yield Listening(app, server, server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()

    return start


@pytest.fixture
def start_service():
    """`start_service(*command, **options)`: a service in a process of its own, which is killed after the test."""
    with ExitStack() as services:
        yield lambda *command, **options: services.enter_context(running(*command, **options))


@pytest.fixture
def start_toy(start_service):
    """`start_toy(**options)`: the same with the toy model."""
    return partial(start_service, *SERVE_TOY)


@pytest.fixture(scope="session")
def eventually():
    """`eventually(condition, seconds=60.0)`: the condition's value as soon as it is true."""

    def wait(condition, seconds=60.0):
        until = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < until
            time.sleep(0.02)
        return value

    return wait
