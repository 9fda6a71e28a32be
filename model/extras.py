"""Optional packages, imported when something needs them."""

from importlib import import_module
from types import ModuleType

from polymodal.model.errors import ModelError


def import_optional(module: str, requirement: str) -> ModuleType:
    """Import a module of an optional package. Raises ModelError, with the requirement that pip installs, when it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        message = f"the package {missing.name} is not installed; pip install {requirement!r} brings it"
        raise ModelError(message) from missing
