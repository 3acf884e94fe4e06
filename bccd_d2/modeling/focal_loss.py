"""Focal loss for classes that exclude each other; that of single logits is ``fvcore.nn.sigmoid_focal_loss``."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  torch's own habit


def softmax_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None = None
) -> Tensor:
    """Focal loss (Lin et al. 2017) on a softmax: ``sum(w (1 - p)^gamma * -log(p)) / sum(w)``.

    p is the probability of the true class and w the weight of that class, so weights change the balance of the classes
    and not the size of the loss. With ``gamma`` 0 this is the weighted cross entropy.

    Args:
        logits: (R, K + 1) float.
        targets: (R,) int64 in [0, K].
        gamma: at least 0.
        class_weights: (K + 1,) float; ``None`` weighs all classes alike.

    Returns:
        A scalar; 0 where R is 0 or all weights are.
    """
    log_probabilities = F.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
    # Not quite 0: to a power below 1 it would have no gradient there.
    doubt = (1 - log_probabilities.exp()).clamp(min=1e-12)
    losses = -log_probabilities * doubt**gamma
    weights = losses.new_ones(len(losses)) if class_weights is None else class_weights[targets]
    return (weights * losses).sum() / weights.sum().clamp(min=1e-12)
