"""Cells in pixels without training: background, instances of a mask, watersheds, masks guessed from boxes."""
