"""How good predictions are: COCO metrics with enough detections, and pixel overlap."""
