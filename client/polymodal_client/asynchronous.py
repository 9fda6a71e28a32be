"""The client for asyncio and trio: the same calls as `Client`, each to be awaited."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import anyio
import httpx
from anyio.to_thread import run_sync

from polymodal_client import calls, wire
from polymodal_client.answers import (
    Classification,
    Embedding,
    Health,
    Index,
    Item,
    ItemAnswer,
    ModelDetail,
    Models,
    SearchAnswer,
    Similarity,
    Transcription,
)
from polymodal_client.batches import Batch, Numbered, Progress
from polymodal_client.calls import Operation
from polymodal_client.exchange import Exchange, Lost, Pause, Reply, Send, Steps
from polymodal_client.files import File, Image, as_file
from polymodal_client.retries import Retries

Answer = TypeVar("Answer")


class AsyncClient:
    """A client of a service with persistent connections; close it, or use it in an `async with`. See `Client`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = wire.base_url(url)
        self._exchange = Exchange(timeout, retries or Retries(), wire.headers(api_key))
        self._http = httpx.AsyncClient(base_url=self.url, transport=transport)

    async def classify(
        self,
        image: Image | None = None,
        text: str | None = None,
        *,
        inputs: Mapping[str, str | File | None] | None = None,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        candidate_labels: Sequence[str] | None = None,
        prior: float | None = None,
        request_id: str | None = None,
    ) -> Classification:
        """Classify one example; any input may be missing: None, NaN or pandas.NA.

        `inputs`: those of any modality by name, a text as str, a file as a Path, bytes, an open file or a PIL image.
        `candidate_labels`: texts to score instead of the model's own labels, each by itself, if the share `prior` of them fits.
        Raises PolymodalError, OSError for a file that can't be read, TypeError or ValueError for what can't be sent.
        """
        return await self._one(
            calls.classify(model, top_k, threshold, candidate_labels, prior),
            Item(image, text, inputs=inputs),
            request_id,
        )

    async def classify_batch(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        candidate_labels: Sequence[str] | None = None,
        prior: float | None = None,
        items_per_request: int = 8,
        concurrency: int = 4,
        progress: Progress | None = None,
    ) -> list[ItemAnswer[Classification]]:
        """Classify many examples; the answers are in their order, and a bad example does not affect the others.

        `progress` is called with the number of items that are done, and the number of all. If the iterable raises, the items end
        there, and the last answer has the error. As long as there are no answers, an error of all items is raised: no connection,
        a wrong key, an unknown model. Raises TypeError or ValueError for options, and for an object that is not iterable.
        """
        task = calls.classify(model, top_k, threshold, candidate_labels, prior)
        batch = Batch(task, items, self._exchange, items_per_request, concurrency, progress)
        return await self._many(batch)

    async def embed(
        self,
        image: Image | None = None,
        text: str | None = None,
        *,
        inputs: Mapping[str, str | File | None] | None = None,
        model: str | None = None,
        space: str | None = None,
        fused: bool | None = None,
        request_id: str | None = None,
    ) -> Embedding:
        """Return a vector for each input of one example; with `fused`, one for all inputs in addition.

        `space`: aligned or classifier, by default the first that the model has. Other arguments and errors are those of `classify`.
        """
        return await self._one(calls.embed(model, space, fused), Item(image, text, inputs=inputs), request_id)

    async def transcribe(
        self,
        audio: Image,
        *,
        language: str | None = None,
        prompt: str | None = None,
        phrases: Iterable[str] | None = None,
        candidates: Iterable[str] | None = None,
        words: bool | None = None,
        temperature: float | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> Transcription:
        """Return the words of a recording, a file as `classify` takes them.

        `prompt`: what it is about; `phrases`: words and names that may occur; `candidates`: all texts that it may be, of which the
        answer is one; `words`: return the times of words. A recording may take longer than the client's timeout. Errors are those
        of `classify`.
        """
        task = calls.transcribe(
            model=model,
            language=language,
            prompt=prompt,
            phrases=phrases,
            candidates=candidates,
            words=words,
            temperature=temperature,
        )
        return await self._one(task, Item(inputs={"audio": as_file(audio)}), request_id)

    async def embed_batch(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        model: str | None = None,
        space: str | None = None,
        fused: bool | None = None,
        items_per_request: int = 8,
        concurrency: int = 4,
        progress: Progress | None = None,
    ) -> list[ItemAnswer[Embedding]]:
        """Embed many examples, as `classify_batch` classifies them."""
        batch = Batch(calls.embed(model, space, fused), items, self._exchange, items_per_request, concurrency, progress)
        return await self._many(batch)

    async def similarity(
        self,
        query: Item | Mapping[str, Any],
        candidates: Iterable[Item | Mapping[str, Any]],
        *,
        model: str | None = None,
        top_k: int | None = None,
        prior: float | None = None,
        request_id: str | None = None,
    ) -> Similarity:
        """Compare a query with candidates, each with any inputs; the pairs are sorted, best first.

        `prior`: share of the pairs that belong together. A candidate that the service rejects is in `failed`. Raises the errors of
        `classify`, also for a candidate that can't be sent; all candidates go into one request.
        """
        call = await run_sync(calls.similarity, query, candidates, model, top_k, prior)  # reads the files
        return await self._run(self._exchange.perform(call, request_id))

    async def search(
        self,
        image: Image | None = None,
        text: str | None = None,
        *,
        inputs: Mapping[str, str | File | None] | None = None,
        index: str | None = None,
        top_k: int | None = None,
        filter: Mapping[str, str | int | float | bool] | None = None,
        min_match: float | None = None,
        prior: float | None = None,
        request_id: str | None = None,
    ) -> SearchAnswer:
        """Return the items of an index that are most similar to an image, a text, or both, best first.

        `index`: by default the first one of `indexes()`. `filter`: values that an item's metadata must have.
        Raises UnknownIndex, IndexOfAnotherModel, and the errors of `classify`.
        """
        search = calls.search(index, top_k, filter, min_match, prior)
        return await self._one(search, Item(image, text, inputs=inputs), request_id)

    async def indexes(self) -> tuple[Index, ...]:
        """Return the indexes that can be searched."""
        return await self._run(self._exchange.perform(calls.indexes()))

    async def call(
        self,
        task: str,
        image: Image | None = None,
        text: str | None = None,
        *,
        inputs: Mapping[str, str | File | None] | None = None,
        options: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> Mapping[str, Any]:
        """Run any task in a model's `tasks`, also one without its own method; return the JSON document of the answer.

        `options`: as the service documents them, `model` included. Raises the errors of `classify`.
        """
        return await self._one(calls.task(task, options or {}), Item(image, text, inputs=inputs), request_id)

    async def models(self) -> Models:
        """Return the served models: labels, inputs with their limits, versions."""
        return await self._run(self._exchange.perform(calls.models()))

    async def model(self, name: str) -> ModelDetail:
        """Return one model with its card and its measured quality. Raises UnknownModel."""
        return await self._run(self._exchange.perform(calls.model(name)))

    async def health(self, probe: str = "ready") -> Health:
        """Return the result of a probe: live, started or ready. Raises Unavailable if it fails; it is not retried."""
        return await self._run(self._exchange.perform(calls.health(probe)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def _one(self, task: Operation[Answer], item: Item, request_id: str | None) -> Answer:
        call = await run_sync(task.call, item)  # reads the files
        return await self._run(self._exchange.perform(call, request_id))

    async def _many(self, batch: Batch[Answer]) -> list[ItemAnswer[Answer]]:
        slots = anyio.Semaphore(batch.concurrency)
        failures: list[Exception] = []
        async with anyio.create_task_group() as tasks:

            async def answer(share: Numbered) -> None:
                try:
                    batch.add(await self._run(batch.perform(await run_sync(batch.prepare, share))))
                except Exception as failure:  # noqa: BLE001 — raised below; a task group would wrap it
                    failures.append(failure)
                    tasks.cancel_scope.cancel()
                finally:
                    slots.release()

            for share in batch.shares():
                await slots.acquire()
                tasks.start_soon(answer, share)
        if failures:
            raise failures[0]
        return batch.result()

    async def _run(self, steps: Steps[Answer]) -> Answer:
        result: Reply | Lost | None = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Pause):
                await anyio.sleep(step.seconds)
                result = None
            else:
                result = await self._send(step)

    async def _send(self, step: Send) -> Reply | Lost:
        try:
            with anyio.fail_after(step.timeout_s):
                request = self._http.build_request(**wire.arguments(step))
                response = await self._http.send(request)
                return wire.reply(response, response.content)
        except TimeoutError:
            return Lost("no answer in time", in_time=False)
        except httpx.RequestError as error:
            return wire.lost(error)
