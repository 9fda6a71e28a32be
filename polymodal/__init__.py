"""Polymodal as users import it: `polymodal.load_bundle("folder")`, `python -m polymodal`.

`polymodal.app` is the folder app/ and `polymodal.model` the folder model/ of the source tree (docs/decisions/0024): "app" and
"model" alone are names that many projects have. What is public is imported when it is used, so that `polymodal --help` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polymodal.model import BundleError, InputError, ModelError, load_bundle

__all__ = ["BundleError", "InputError", "ModelError", "load_bundle"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 — any of the public names
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("polymodal.model"), name)
