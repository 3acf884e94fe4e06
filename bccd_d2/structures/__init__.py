"""What every part passes around: cells, detections, COCO documents, run lengths, polygons."""
