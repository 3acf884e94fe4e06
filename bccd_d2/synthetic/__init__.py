"""Synthetic blood smears with exact truth: the embedded default of the pipeline and the tests' data.

Numbers and colours follow measurements on the public set "BCCD Dataset with mask" (Depto et al. 2021). The modules,
in the order of their use: ``slide`` (stain, light, camera), ``outlines`` and ``cells`` (single cells), ``field``
(where they lie), ``camera`` (dirt, light, lens), ``smear`` (picture and truth), ``files``.
"""

from bccd_d2.synthetic.files import SyntheticSet, write_synthetic_set
from bccd_d2.synthetic.slide import Slide, draw_slide, draw_slides
from bccd_d2.synthetic.smear import SyntheticCell, SyntheticSmear, draw_smear

__all__ = [
    "Slide",
    "SyntheticCell",
    "SyntheticSet",
    "SyntheticSmear",
    "draw_slide",
    "draw_slides",
    "draw_smear",
    "write_synthetic_set",
]
