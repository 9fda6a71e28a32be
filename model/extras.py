"""Packages of optional extras, imported when something needs them."""

from importlib import import_module
from types import ModuleType

from polymodal.model.errors import ModelError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an extra of this package. Raises ModelError, with the command that installs it, when it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        message = f"the package {missing.name} is not installed; pip install 'polymodal[{extra}]' brings it"
        raise ModelError(message) from missing
