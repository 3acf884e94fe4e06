"""What Detectron2 lacks, registered by name and chosen in YAML. Importing this registers it."""

from bccd_d2.modeling import slim_resnet as slim_resnet
