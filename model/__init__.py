"""The door of the model package: all that serving may use. Torch-free."""

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
from model.modalities import workload
from model.predictor import Predictor, load_bundle
from model.runtimes.processor import Processor, processor
from model.types import Description, InputSpec, Parts, Prediction, Probe, Sample

__all__ = [
    "BundleError",
    "Description",
    "InputError",
    "InputSpec",
    "ModelError",
    "NothingGiven",
    "Parts",
    "Prediction",
    "Predictor",
    "Probe",
    "Processor",
    "Sample",
    "TooLarge",
    "Undecodable",
    "UnknownModality",
    "UnsupportedFormat",
    "load_bundle",
    "processor",
    "workload",
]
