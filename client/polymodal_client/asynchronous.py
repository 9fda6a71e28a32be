"""The client for asyncio and trio: the same calls as `Client`, each to be awaited."""

from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

import anyio
import httpx
from anyio.to_thread import run_sync

from polymodal_client import calls, wire
from polymodal_client.answers import Classification, Health, Item, ItemAnswer, ModelDetail, Models
from polymodal_client.batches import Batch, Numbered, Progress
from polymodal_client.calls import Options
from polymodal_client.exchange import Exchange, Lost, Pause, Reply, Send, Steps
from polymodal_client.pictures import Image
from polymodal_client.retries import Retries

Answer = TypeVar("Answer")


class AsyncClient:
    """A service, asked over connections that are kept; close it, or use it in an `async with`. See `Client`."""

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
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        request_id: str | None = None,
    ) -> Classification:
        """Classify one example; image or text may be missing: None, NaN or pandas.NA.

        Raises PolymodalError, OSError for an image that can't be read, TypeError or ValueError for what can't be sent.
        """
        options = Options(model, top_k, threshold)
        call = await run_sync(calls.classify, Item(image, text), options)  # reads the image
        return await self._run(self._exchange.ask(call, request_id))

    async def classify_batch(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        model: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        items_per_request: int = 8,
        concurrency: int = 4,
        progress: Progress | None = None,
    ) -> list[ItemAnswer]:
        """Classify many examples; the answers are in their order, and a bad one fails alone.

        `progress` is called with how many are done, and of how many. An iterable that raises ends there, and its error is
        that of the last answer. Raises an error that all of them would get, as long as there are no answers: no connection
        from the start, a wrong key, an unknown model; TypeError or ValueError for options, and for what is no iterable.
        """
        options = Options(model, top_k, threshold)
        batch = Batch(
            items,
            options,
            self._exchange,
            items_per_request=items_per_request,
            concurrency=concurrency,
            progress=progress,
        )
        turns = anyio.Semaphore(batch.concurrency)
        failures: list[Exception] = []
        async with anyio.create_task_group() as tasks:

            async def answer(share: Numbered) -> None:
                try:
                    batch.add(await self._run(batch.ask(await run_sync(batch.prepare, share))))
                except Exception as failure:  # noqa: BLE001 — raised below; a task group would wrap it
                    failures.append(failure)
                    tasks.cancel_scope.cancel()
                finally:
                    turns.release()

            for share in batch.shares():
                await turns.acquire()
                tasks.start_soon(answer, share)
        if failures:
            raise failures[0]
        return batch.result()

    async def models(self) -> Models:
        """What is served: labels, inputs with their limits, versions."""
        return await self._run(self._exchange.ask(calls.models()))

    async def model(self, name: str) -> ModelDetail:
        """One model with its card and its measured quality. Raises UnknownModel."""
        return await self._run(self._exchange.ask(calls.model(name)))

    async def health(self, probe: str = "ready") -> Health:
        """Ask a probe: live, started or ready. Raises Unavailable when it fails; nothing is repeated."""
        return await self._run(self._exchange.ask(calls.health(probe)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def _run(self, steps: Steps[Answer]) -> Answer:
        outcome: Reply | Lost | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Pause):
                await anyio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

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
