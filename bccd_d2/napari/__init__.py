"""Plugin of napari (extra ``napari``): cells of the open image as layers, corrected there and trained on."""
