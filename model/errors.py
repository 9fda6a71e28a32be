"""What can go wrong in the model package, sorted by who can act; nothing here knows of HTTP.

ModelError
├── BundleError            the operator: the bundle is missing, altered, of another version, or disagrees with itself
└── InputError             the caller, by sending something else (raised by Predictor.prepare alone)
    ├── NothingGiven       no modality at all
    ├── UnknownModality    a modality that this model does not take
    ├── UnsupportedFormat  bytes of a kind that is not accepted
    ├── TooLarge           more pixels, or a longer text, than is accepted
    └── Undecodable        the right kind, but broken
"""


class ModelError(Exception):
    """Anything this package raises on purpose."""


class BundleError(ModelError):
    """The bundle cannot be served as it is; the message names the file and what is wrong with it."""


class InputError(ModelError):
    """The caller can succeed by sending something else.

    `modality` names the input, `problem` what was found and `allowed` what would do.
    """

    def __init__(self, modality: str, problem: str, allowed: str) -> None:
        super().__init__(f"{modality}: {problem}; allowed: {allowed}")
        self.modality = modality
        self.problem = problem
        self.allowed = allowed


class NothingGiven(InputError):
    """No modality was given at all."""


class UnknownModality(InputError):
    """A modality that this model does not take."""


class UnsupportedFormat(InputError):
    """Bytes whose kind, read from the bytes themselves, is not accepted."""


class TooLarge(InputError):
    """More pixels, or a longer text, than is accepted."""


class Undecodable(InputError):
    """The right kind of bytes, but broken, truncated or empty."""
