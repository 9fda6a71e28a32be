"""From a manifest to a bundle; never imported while serving."""

from model.manifest import ManifestError
from model.training.presets import PRESETS
from model.training.repack import export, remeasure
from model.training.train import train

__all__ = ["PRESETS", "ManifestError", "export", "remeasure", "train"]
