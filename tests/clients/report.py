"""The scripts of this folder report a line for each call that worked. They run in environments of their own."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

SERVICE, LIMITED = os.environ["SERVICE"], os.environ["LIMITED"]
"""Addresses of a service with keys, and of one with a rate limit in addition."""
KEY, NARROW_KEY = os.environ["KEY"], os.environ["NARROW_KEY"]
"""A key with the scopes embed, transcribe and models, and one without embed."""
IMAGE = os.environ["IMAGE"]
"""A red image as a data: URI."""
SOUND = os.environ["SOUND"]
"""A file of 7 s with two words, "one" from 1 to 3 s and "two" from 6 to 7 s, which the model speech is scripted to recognise."""


def report(call: str, result: str) -> None:
    """Write a line of the table."""
    sys.stdout.write(json.dumps([call, result]) + "\n")
    sys.stdout.flush()


def refused(kind: type[Exception], call: Callable[[], Any], *words: str) -> Any:
    """Return the exception of this class that the call raises, whose message has these words."""
    try:
        call()
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        if missing:
            raise AssertionError(f"{missing} not in {error}") from error
        return error
    raise AssertionError(f"no {kind.__name__}")
