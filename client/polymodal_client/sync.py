"""The client for ordinary code; may be shared by threads."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

import httpx

from polymodal_client import calls, wire
from polymodal_client.answers import Classification, Health, Item, ItemAnswer, ModelDetail, Models
from polymodal_client.batches import Batch, Numbered, Progress
from polymodal_client.calls import Options
from polymodal_client.exchange import Exchange, Lost, Pause, Reply, Send, Steps
from polymodal_client.pictures import Image
from polymodal_client.retries import Retries

Answer = TypeVar("Answer")


class Client:
    """A service, asked over connections that are kept; close it, or use it in a `with`.

    `timeout`: seconds for each call, repeats and waits included. `transport`: httpx' own, for tests and special networks.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = wire.base_url(url)
        self._exchange = Exchange(timeout, retries or Retries(), wire.headers(api_key))
        self._http = httpx.Client(base_url=self.url, transport=transport)

    def classify(
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
        call = calls.classify(Item(image, text), Options(model, top_k, threshold))
        return self._run(self._exchange.ask(call, request_id))

    def classify_batch(
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
        pending: set[Future[list[ItemAnswer]]] = set()
        with ThreadPoolExecutor(batch.concurrency, thread_name_prefix="polymodal") as threads:
            try:
                for share in batch.shares():
                    if len(pending) == batch.concurrency:
                        pending = _collect(batch, pending)
                    pending.add(threads.submit(self._share, batch, share))
                while pending:
                    pending = _collect(batch, pending)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return batch.result()

    def models(self) -> Models:
        """What is served: labels, inputs with their limits, versions."""
        return self._run(self._exchange.ask(calls.models()))

    def model(self, name: str) -> ModelDetail:
        """One model with its card and its measured quality. Raises UnknownModel."""
        return self._run(self._exchange.ask(calls.model(name)))

    def health(self, probe: str = "ready") -> Health:
        """Ask a probe: live, started or ready. Raises Unavailable when it fails; nothing is repeated."""
        return self._run(self._exchange.ask(calls.health(probe)))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _share(self, batch: Batch, share: Numbered) -> list[ItemAnswer]:
        return self._run(batch.ask(batch.prepare(share)))

    def _run(self, steps: Steps[Answer]) -> Answer:
        outcome: Reply | Lost | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def _send(self, step: Send) -> Reply | Lost:
        until = time.monotonic() + step.timeout_s
        body = bytearray()
        try:
            with self._http.stream(**wire.arguments(step)) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > until:  # httpx bounds each read, not all of them together
                        return Lost("the answer did not end in time", in_time=False)
            return wire.reply(response, bytes(body))
        except httpx.RequestError as error:
            return wire.lost(error)


def _collect(batch: Batch, pending: set[Future[list[ItemAnswer]]]) -> set[Future[list[ItemAnswer]]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        batch.add(future.result())
    return rest
