"""From dataset dicts to tensors: registration, stain normalization, augmentation, the dataset mapper."""
