"""The door of the model package: all that serving may use. Torch-free."""

from model.cache import EmbeddingCache
from model.errors import (
    BundleError,
    InputError,
    ModelError,
    NothingGiven,
    TooLarge,
    Undecodable,
    UnknownModality,
    UnsupportedFormat,
)
from model.predictor import Predictor, load_bundle
from model.types import Description, InputSpec, Prediction, Sample

__all__ = [
    "BundleError",
    "Description",
    "EmbeddingCache",
    "InputError",
    "InputSpec",
    "ModelError",
    "NothingGiven",
    "Prediction",
    "Predictor",
    "Sample",
    "TooLarge",
    "Undecodable",
    "UnknownModality",
    "UnsupportedFormat",
    "load_bundle",
]
