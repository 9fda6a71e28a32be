"""Model kinds: how bundles are loaded and run. A new kind is a module of this package and a line in KINDS."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from polymodal.model.capabilities import Model
from polymodal.model.errors import BundleError
from polymodal.model.kinds.encoders import load_encoders
from polymodal.model.kinds.network import load_network
from polymodal.model.kinds.speech import load_speech

Load = Callable[[Path, str | None, str, int | None], Model]
"""Arguments: a bundle's folder, the name that replaces its own, the name of a runtime or "auto", the number of threads."""

KINDS: Final[dict[str, Load]] = {"network": load_network, "encoders": load_encoders, "speech": load_speech}


SLOW_KINDS: Final = frozenset({"speech"})
"""Kinds whose items take seconds: they have workers of their own, for which no other model waits."""


def load_bundle(
    directory: Path | str, *, name: str | None = None, runtime: str = "auto", threads: int | None = None
) -> Model:
    """Open a bundle and start its runtime; call `warm_up` before serving from it.

    `name` replaces the bundle's own. One forward pass may use `threads` threads (default: the cores of this process).
    Raises BundleError when a file is missing, altered, or of an unknown version or kind.
    """
    directory = Path(directory)
    return KINDS[kind_of(directory)](directory, name, runtime, threads)


def kind_of(directory: Path) -> str:
    """Return the kind of a bundle; "network" for format 2, which has no kind, and for broken bundles, which that kind rejects.

    Raises BundleError for a kind that is not known.
    """
    try:
        kind = json.loads((directory / "config.json").read_bytes()).get("kind", "network")
    except (OSError, ValueError, AttributeError):
        kind = "network"
    if kind not in KINDS:
        raise BundleError(f"{directory}: a model of kind {kind!r}; known are {', '.join(KINDS)}")
    return str(kind)
