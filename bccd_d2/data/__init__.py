"""From Detectron2's dataset dicts to what its models are trained on."""
