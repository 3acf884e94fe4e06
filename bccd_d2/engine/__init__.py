"""Training and evaluation on Detectron2's trainer, hooks and checkpoints."""
