"""Errors of the model package, by who can act on them.

ModelError
├── BundleError            the operator: the bundle is missing, altered, of another version, or contradicts itself
├── SearchIndexError       the operator: the index is missing, altered, or of another model
└── InputError             the client, by sending something else
    ├── NothingGiven       no modality at all
    ├── UnknownModality    a modality that this model does not take
    ├── UnsupportedFormat  bytes of a kind that is not accepted
    ├── TooLarge           more pixels, or a longer text, than is accepted
    ├── Undecodable        the right kind, but broken
    └── InvalidParameter   an option with a value that the model cannot have

Each InputError has a stable `code`, a `title` and an HTTP `status` (RFC 9110), as every error of the service has. The status is
data that needs no HTTP library, and with it a new class is defined in one place.
"""

from typing import ClassVar


class ModelError(Exception):
    """Base of all errors that this package raises."""


class BundleError(ModelError):
    """A bundle that cannot be served; the message names the file and the problem."""


class SearchIndexError(ModelError):
    """An index that cannot be searched or written; the message names the folder and the problem."""


class InputError(ModelError):
    """An input that the client can correct.

    `input` names the input or option, `found` is what was found there, `allowed` what is accepted.
    """

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid_input"
    title: ClassVar[str] = "The input cannot be used"

    def __init__(self, input: str, found: str, allowed: str) -> None:
        super().__init__(f"{input}: {found}; allowed: {allowed}")
        self.input, self.found, self.allowed = input, found, allowed


class NothingGiven(InputError):
    """A request without any modality."""

    code = "nothing_given"
    title = "Nothing to classify"


class UnknownModality(InputError):
    """A modality that this model does not take."""

    code = "unknown_modality"
    title = "An input that the model does not take"


class UnsupportedFormat(InputError):
    """Bytes of a kind that is not accepted; the kind is read from the bytes themselves."""

    status = 415
    code = "unsupported_format"
    title = "A file format that the model does not read"


class TooLarge(InputError):
    """More pixels, or a longer text, than is accepted."""

    code = "too_large"
    title = "The input is larger than the model accepts"


class Undecodable(InputError):
    """Bytes of an accepted kind that are broken, truncated or empty."""

    code = "undecodable"
    title = "The input is broken"


class InvalidParameter(InputError):
    """A known field or option with an invalid value."""

    code = "invalid_parameter"
    title = "A field has an impossible value"


def input_error(code: str, input: str, found: str, allowed: str) -> InputError:
    """Return the error of a code, as raised in another process; an InputError for an unknown code."""
    kinds: dict[str, type[InputError]] = {kind.code: kind for kind in InputError.__subclasses__()}
    return kinds.get(code, InputError)(input, found, allowed)
