"""Head of the single-label target: cross-entropy. B examples, K labels."""

from torch import Tensor
from torch.nn import functional

from polymodal.model.targets.heads import LabelHead


class SingleLabelHead(LabelHead):
    """A logit for each label, of which exactly one is right."""

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Return the cross-entropy (B,) of logits (B, K) against label indices (B,), times the weight of the right label."""
        losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return losses if weights is None else losses * weights[targets]
