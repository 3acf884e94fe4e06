"""What Detectron2 lacks, registered by name and chosen in YAML."""

from bccd_d2.modeling import timm_backbone, vit

__all__ = ["timm_backbone", "vit"]
