"""What Detectron2 lacks, registered by name and chosen in YAML. Importing this registers it."""

from bccd_d2.modeling import partial_labels as partial_labels
from bccd_d2.modeling import roi_heads as roi_heads
from bccd_d2.modeling import slim_resnet as slim_resnet
from bccd_d2.modeling import timm_backbone as timm_backbone
