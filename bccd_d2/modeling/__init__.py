"""What Detectron2 lacks, registered by name and chosen in YAML."""

from bccd_d2.modeling import ignore, mask_head, roi_heads, rpn

__all__ = ["ignore", "mask_head", "roi_heads", "rpn"]
