"""From image and mask files to COCO instance JSON. Imports no torch, so that its commands start at once."""
