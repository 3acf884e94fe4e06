"""Kinds of blood cells by the names of classes: the one table of synonyms of what measures, types or counts by kind."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

from bccd_d2.structures.names import class_key

CellKind = Literal["red", "white", "platelet", "other"]
"""``other`` is known to be none of the three: erythroblasts, artefacts, what is to be ignored."""

# In the singular and in lower case, with a space between words.
_NAMES: dict[CellKind, tuple[str, ...]] = {
    "red": (
        *("rbc", "red cell", "red blood cell", "red corpuscle", "erythrocyte", "reticulocyte"),
        *("infected rbc", "infected red cell", "infected red blood cell", "infected erythrocyte"),
        *("uninfected rbc", "uninfected red cell", "uninfected red blood cell", "uninfected erythrocyte"),
        # Red cells with a malaria parasite by the stage of the parasite, as in BBBC041.
        *("trophozoite", "ring", "schizont", "gametocyte"),
        # Shapes.
        *("macrocyte", "microcyte", "normocyte", "discocyte", "spherocyte", "elliptocyte", "ovalocyte"),
        *("target cell", "codocyte", "stomatocyte", "teardrop", "teardrop cell", "dacrocyte", "dacryocyte"),
        *(
            "burr cell",
            "echinocyte",
            "acanthocyte",
            "schistocyte",
            "helmet cell",
            "bite cell",
            "blister cell",
        ),
        *("sickle cell", "drepanocyte", "hypochromic"),
    ),
    "white": (
        *("wbc", "white cell", "white blood cell", "white corpuscle", "leukocyte", "leucocyte"),
        *("granulocyte", "immature granulocyte", "neutrophil", "eosinophil", "basophil"),
        *("neutrophil segmented", "segmented neutrophil", "neutrophil band", "band neutrophil", "band cell"),
        *("lymphocyte", "monocyte", "plasma cell", "metamyelocyte", "myelocyte", "promyelocyte"),
        *("blast", "blast cell", "myeloblast", "lymphoblast", "monoblast"),
    ),
    "platelet": ("platelet", "plt", "thrombocyte", "giant platelet", "platelet clump"),
    "other": (
        *("erythroblast", "normoblast", "nrbc", "nucleated rbc", "nucleated red cell"),
        *("nucleated red blood cell", "smudge cell"),
        *("artefact", "artifact", "background", "debris", "dirt", "stain", "difficult", "ignore", "ignored"),
        *("other", "unsure"),
    ),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
_logger = logging.getLogger(__name__)


def kind_of(class_name: str) -> CellKind | None:
    """What kind of cell a class is, whatever the case, in the singular or in the plural, with spaces, ``_`` or ``-``
    between words; ``None`` if the name is not known, such as ``cell``.
    """
    name = re.sub(r"[\s_-]+", " ", class_key(class_name)).casefold()
    return _KINDS.get(name) or _KINDS.get(name.removesuffix("s"))


def classes_of(kind: CellKind, class_names: Sequence[str]) -> list[int]:
    """Indices of the classes that are of a kind by name."""
    return [index for index, name in enumerate(class_names) if kind_of(name) == kind]


def red_cell_classes(class_names: Sequence[str]) -> list[int]:
    """Indices of the classes whose cells count as red cells where their size matters.

    Those that are red by name; if none is, those of unknown names, such as ``cell``; else all. Says once what it took.
    """
    return list(_red_cell_classes(tuple(class_names)))


@cache
def _red_cell_classes(names: tuple[str, ...]) -> tuple[int, ...]:
    kinds = [kind_of(name) for name in names]
    unknown = [name for name, kind in zip(names, kinds) if kind is None]
    chosen = next((kind for kind in ("red", None) if kind in kinds), "all")
    red = tuple(index for index, kind in enumerate(kinds) if chosen in (kind, "all"))
    if chosen != "red" or unknown:
        _logger.log(
            logging.WARNING if len(names) > 1 else logging.INFO,
            "classes %s: %s; sizes of red cells are taken from %s",
            ", ".join(names),
            f"{', '.join(unknown)} not known as a kind of cell" if unknown else "none is of red cells",
            ", ".join(names[index] for index in red),
        )
    return red
