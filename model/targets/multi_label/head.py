"""Head of the multi-label target: binary cross-entropy. B examples, K labels."""

from torch import Tensor
from torch.nn import functional

from polymodal.model.targets.heads import LabelHead


class MultiLabelHead(LabelHead):
    """A logit for each label, independent of the others."""

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
        """Return the mean (B,) over the labels of the binary cross-entropy of logits (B, K) against 0 or 1 (B, K).

        A weight multiplies the loss of examples that have the label (`pos_weight` of torch); smoothing moves targets towards 1/2.
        """
        smooth = targets * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
        return losses.mean(dim=1)
