"""Limits on the requests in the service at one time: their number, and the bytes of their bodies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polymodal.app.serving.batching import Overloaded


class Admission:
    """Counts requests and the bytes of their bodies, from before a body is read until the request is answered.

    The number alone does not bound memory: a hundred requests may be a hundred sentences or a hundred recordings.
    """

    def __init__(self, requests: int, body_bytes: int, wait_s: Callable[[], float]) -> None:
        """`wait_s` predicts after which time a refused request may be retried."""
        self._most_requests, self._most_bytes, self._wait_s = requests, body_bytes, wait_s
        self.requests = 0
        """Number of admitted requests that are not yet answered."""
        self.bytes = 0
        """Bytes of their bodies, as far as they have been read or declared."""

    @contextmanager
    def admit(self) -> Iterator["Admitted"]:
        """Count a request until the block ends. Raises Overloaded when the limit is reached."""
        if self.requests >= self._most_requests:
            raise Overloaded.queue_full(self.requests, self._most_requests, self._wait_s())
        self.requests += 1
        admitted = Admitted(self)
        try:
            yield admitted
        finally:
            self.requests -= 1
            self.bytes -= admitted.bytes

    def take(self, size: int, held: int) -> None:
        """Add `size` bytes for a request that holds `held`. Raises Overloaded above the limit, unless it is the only one."""
        others = self.bytes - held
        if others and others + held + size > self._most_bytes:
            problem = f"{others} bytes of other requests are being read or computed, and this one has {held + size}"
            raise Overloaded(problem, f"{self._most_bytes} bytes", self._wait_s())
        self.bytes += size


class Admitted:
    """The bytes that one admitted request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0
        """Bytes that are counted so far."""

    def hold(self, size: int) -> None:
        """Count a body of `size` bytes in all, some of which may be counted already. Raises Overloaded."""
        if (more := size - self.bytes) > 0:
            self._admission.take(more, self.bytes)
            self.bytes = size
