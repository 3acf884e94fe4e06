"""A network whose answers are known: it finds dark discs on bright glass by a threshold."""

from types import SimpleNamespace

import cv2
import numpy as np
from scipy import ndimage

from bccd_d2.structures.detections import Detections

GLASS, CELL = 230, 60
MASK_SIZE = 56


def draw(height, width, discs):
    """(height, width, 3) uint8 with discs (x, y, radius); the middle channel is a little darker."""
    image = np.full((height, width, 3), GLASS, np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    for cx, cy, radius in discs:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = (CELL, CELL - 20, CELL)
    return image


class BlobNetwork:
    """In place of :class:`bccd_d2.inference.predictor.Network`: every dark component is a cell of class 0.

    The score falls with the area, so that it is the same in every view; components that the image cuts are found too.
    """

    batch_size = 1
    mode = "plain"

    def __init__(self):
        self.model = SimpleNamespace()
        self.seen = []

    def __call__(self, images):
        self.seen += [image.shape for image in images]
        return [self._find(np.ascontiguousarray(image)) for image in images]

    def _find(self, image):
        labels, _ = ndimage.label(image[..., 1] < 140)
        boxes, masks, scores = [], [], []
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = (labels[rows, columns] == index).astype(np.float32)
            boxes.append([columns.start, rows.start, columns.stop, rows.stop])
            masks.append(cv2.resize(inside, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_LINEAR))
            scores.append(1 / (1 + inside.sum() / 1e4))
        order = np.argsort(-np.array(scores), kind="stable")
        return Detections(
            *image.shape[:2],
            np.array(boxes, np.float32).reshape(-1, 4)[order],
            np.zeros(len(order), np.int64),
            np.array(scores, np.float32)[order],
            np.array(masks, np.float32).reshape(-1, MASK_SIZE, MASK_SIZE)[order],
        )
