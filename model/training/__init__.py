"""Train bundles from manifests; never imported by serving."""

from polymodal.model.manifest import ManifestError
from polymodal.model.training.align import align
from polymodal.model.training.dual_encoders import import_encoders
from polymodal.model.training.presets import PRESETS, aligns
from polymodal.model.training.repack import export, remeasure
from polymodal.model.training.train import train

__all__ = ["PRESETS", "ManifestError", "align", "aligns", "export", "import_encoders", "remeasure", "train"]
