"""Adapts what is installed to what Detectron2 expects (filled in below)."""
