"""Instance segmentation of blood cells in stained smears with Detectron2."""

from bccd_d2 import compat as compat

__version__ = "0.1.0"
