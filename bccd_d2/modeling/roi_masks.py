"""From a model's instances to cells, before Detectron2 has stretched their masks over the image."""

from __future__ import annotations

from detectron2.structures import Instances

from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections


def cells_of_instances(instances: Instances) -> Cells:
    """The cells that a model's heads found.

    Args:
        instances: of one image on any device, with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``
            (N, 1, M, M) probabilities.

    Returns:
        In pixels of the network's input, in the same order; an empty box has an empty mask.
    """
    height, width = instances.image_size
    return Detections(
        height,
        width,
        boxes=instances.pred_boxes.tensor.float().cpu().numpy(),
        classes=instances.pred_classes.cpu().numpy(),
        scores=instances.scores.float().cpu().numpy(),
        masks=instances.pred_masks[:, 0].float().cpu().numpy(),
    ).paste()
