"""What is fuzzed: everything that reads files."""

from __future__ import annotations

import io
import pickle
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
import fuzz_mutations as mutations
import soak
import torch
from detectron2.data import DatasetCatalog
from fuzz_examples import COCO, output_of, trainer, truth_document

from bccd_d2.audit.document import read_annotations
from bccd_d2.config import load_config
from bccd_d2.conversion.convert import convert_annotations
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.conversion.importers.boxes import read_bbbc041, read_voc
from bccd_d2.conversion.label_masks import write_label_masks
from bccd_d2.conversion.pairs import ImageMaskPair
from bccd_d2.conversion.splits import SplitPlan, plan_split, read_image_sets, read_splits
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.registration import register_bccd
from bccd_d2.engine.ablation import AblationPlan
from bccd_d2.engine.run_folder import record_run
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set as read_truth
from bccd_d2.evaluation.dataset import truth_from_coco
from bccd_d2.evaluation.external import read_predictions
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.inference.collect import collect
from bccd_d2.inference.outputs import claim_output
from bccd_d2.io.coco_images import check_file
from bccd_d2.io.images import open_source, page_count, read_image, read_image_size
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.io.storage import Storage
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.reporting.run_figures import read_records
from bccd_d2.structures.coco import read_coco

Structured = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """Something that is given the path of an input (``file`` below a folder of its own) and reads it.

    ``examples`` are valid inputs and ``neighbours`` files beside the input, keys of :func:`fuzz_examples.example`;
    ``structured`` changes what is in an input, beside its bytes.
    """

    name: str
    file: str
    read: Callable[[Path], Any]
    examples: Sequence[str]
    structured: Structured | None = None
    neighbours: Sequence[str] = ()


def each(*functions: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Call all functions with the path, also after an InputError, which is raised if none can do without it."""

    def read(path: Path) -> None:
        refused = []
        for function in functions:
            try:
                function(path)
            except InputError as error:
                refused.append(error)
        if len(refused) == len(functions):
            raise refused[0]

    return read


def read_source(path: Path) -> None:
    """All pages, whole."""
    for page in range(min(page_count(path), 3)):
        with open_source(path, page=page) as source:
            source.read(0, 0, min(source.width, 2000), min(source.height, 2000))


def read_registered(path: Path) -> None:
    """As a training does: register, load, map every image."""
    register_bccd(path.parent.parent, "fuzz")
    dicts = DatasetCatalog.get("fuzz_val")
    for entry in dicts:
        mapper()(entry)


@cache
def mapper() -> BCCDDatasetMapper:
    """Of small training crops."""
    return BCCDDatasetMapper(
        load_config(soak.CONFIG, [*soak.OPTIONS.split(), "INPUT.CROP.SIZE", "[32,32]"]), True
    )


def resume(path: Path) -> None:
    """Go on from a checkpoint, which takes the place of the trainer's."""
    shutil.copyfile(path, Path(trainer().cfg.OUTPUT_DIR) / "model_final.pth")
    trainer().resume_or_load(resume=True)


def read_output(path: Path) -> None:
    """As a batch that is resumed and collected."""
    outputs = output_of(path.parent.parent)
    outputs.is_finished("a.png", "a.png")
    collect([("a.png", "a.png")], outputs)


def read_imported(kind: str) -> Callable[[Path], None]:
    """A reader of annotations of another tool that converts what it finds."""

    def read(path: Path) -> None:
        out = path.parent.parent / "converted"
        convert_annotations(path.parent, out, kind=kind, images=path.parent.parent / "img", overwrite=True)

    return read


def read_table(path: Path) -> None:
    """Groups of images from a CSV table."""
    pairs = [ImageMaskPair(stem, Path(f"{stem}.png"), Path(f"{stem}.png")) for stem in "abcd"]
    plan_split(pairs, SplitPlan("table", path=str(path), column="patient", ratios=(0.5, 0.5, 0)))


def mutate_torch(content: bytes, draw: random.Random) -> bytes:
    """What is in a checkpoint of torch's."""
    stream = io.BytesIO()
    torch.save(mutations.mutate_tree(torch.load(io.BytesIO(content), weights_only=True), draw), stream)
    return stream.getvalue()


def mutate_pickle(content: bytes, draw: random.Random) -> bytes:
    """What is in a pickle."""
    return pickle.dumps(mutations.mutate_tree(pickle.loads(content), draw), protocol=draw.choice((2, 4)))


def read_masks(path: Path) -> None:
    """By every rule."""
    rules = (
        MaskRule(),
        MaskRule("instances"),
        MaskRule("instances", channel="rgb"),
        MaskRule("classes", values=((0, "background"), (255, "RBC"))),
        MaskRule("classes", colours=(((0, 0, 0), "background"), ((255, 255, 255), "RBC"))),
    )
    each(*(partial(read_mask, rule=rule) for rule in rules))(path)


_read_image = each(read_image_size, read_image, read_source)
_JSON, _YAML, _TEXT = mutations.mutate_json, mutations.mutate_yaml, mutations.mutate_text
_PNG, _TENSORS = mutations.mutate_png, mutations.mutate_safetensors
_PREDICTED = ("results.json", "named.json", "document.json")
_IMPORTED: tuple[tuple[str, str, str, Structured | None, tuple[str, ...]], ...] = (
    ("coco", "a.json", COCO, _JSON, ()),
    ("yolo", "a.txt", "yolo.txt", _TEXT, ()),
    ("cvat", "a.xml", "cvat.xml", _TEXT, ()),
    ("labelme", "a.json", "labelme.json", _JSON, ()),
    ("label-studio", "a.json", "label-studio.json", _JSON, ()),
    ("via", "a.json", "via.json", _JSON, ()),
    ("coco", "a.json", "predictions.json", _JSON, ()),
    ("label-studio", "a.json", "label-studio-min.json", _JSON, ()),
    ("via", "a.json", "via_3.json", _JSON, ()),
    ("via", "a.csv", "via.csv", _TEXT, ()),
    ("geojson", "a.geojson", "a.geojson", _JSON, ()),
    ("imagej", "a.roi", "a.roi", None, ()),
    ("imagej", "a.zip", "a.zip", None, ()),
    ("cellpose", "a_seg.npy", "a_seg.npy", _TEXT, ()),
    ("labels", "a.tif", "labels.tif", None, ("in/a.csv",)),
)

READERS = [
    Reader("PNG mask", "a.png", read_masks, ("binary.png", "palette.png", "deep.png"), _PNG),
    Reader("TIFF mask", "a.tif", read_masks, ("labels.tif", "strips.tif", "float.tif")),
    Reader("NumPy mask", "a.npy", read_masks, ("labels.npy", "float.npy"), _TEXT),
    Reader("PNG image", "a.png", _read_image, ("a.png", "deep.png", "palette.png"), _PNG),
    Reader("JPEG or BMP image", "a.jpg", _read_image, ("a.jpg", "a.bmp")),
    Reader("TIFF image", "a.tif", _read_image, ("labels.tif", "strips.tif", "tiles.tif", "float.tif")),
    Reader("VOC XML", "a.xml", read_voc, ("voc.xml",), _TEXT),
    Reader("VOC lists", "train.txt", lambda p: read_image_sets(p.parent), ("train.txt",), None, ("val.txt",)),
    Reader("BBBC041 JSON", "a.json", lambda p: list(read_bbbc041(p)), ("bbbc041.json",), _JSON),
    *(
        Reader(f"{name} imported", f"in/{file}", read_imported(kind), (name,), change, ("img/a.png", *more))
        for kind, file, name, change, more in _IMPORTED
    ),
    Reader(
        "mask-folders imported",
        "a/masks/1.png",
        lambda path: convert_annotations(
            path.parents[1], path.parents[2] / "converted", kind="mask-folders", overwrite=True
        ),
        ("binary.png",),
        _PNG,
        ("a/images/a.png",),
    ),
    Reader("COCO, checked", COCO, check_file, (COCO,), _JSON, ("a.png",)),
    Reader(
        "COCO to label images",
        COCO,
        lambda p: write_label_masks(read_coco(p), p.parent / "out"),
        (COCO,),
        _JSON,
    ),
    Reader("COCO, for training", COCO, read_registered, (COCO,), _JSON, ("a.png",)),
    Reader("COCO, evaluated", COCO, read_truth, (COCO,), _JSON, ("a.png",)),
    Reader("COCO, audited", COCO, lambda p: read_annotations(p.parent), (COCO,), _JSON),
    Reader(
        "COCO results",
        "a.json",
        lambda p: read_predictions(p, truth_from_coco(truth_document()[0])),
        _PREDICTED,
        _JSON,
    ),
    Reader("split JSON", "splits.json", read_splits, ("splits.json",), _JSON),
    Reader("split table", "table.csv", read_table, ("table.csv",), _TEXT),
    Reader(
        "configuration",
        "a.yaml",
        lambda p: EvaluationOptions.from_config(load_config(p)),
        ("config.yaml", "short.yaml"),
        _YAML,
    ),
    Reader("spec", "a.yaml", read_spec, ("voc.yaml", "masks.yaml"), _YAML),
    Reader("ablation plan", "a.yaml", AblationPlan.read, ("plan.yaml",), _YAML),
    Reader("checkpoint .pth", "a.pth", read_checkpoint, ("a.pth",), mutate_torch),
    Reader("checkpoint .safetensors", "a.safetensors", read_checkpoint, ("a.safetensors",), _TENSORS),
    Reader("checkpoint .pkl", "a.pkl", read_checkpoint, ("a.pkl",), mutate_pickle),
    Reader("training to resume", "a.pth", resume, ("training.pth",), mutate_torch),
    Reader(
        "record of a run",
        "run.json",
        lambda p: record_run(p.parent, 1, {"bccd_val": p.parent / "val.txt"}, resumed=True),
        ("run.json",),
        _JSON,
        ("val.txt",),
    ),
    Reader("metrics.json", "metrics.json", lambda p: read_records(p, "total_loss"), ("metrics.json",), _TEXT),
    Reader(
        "record of an image",
        "records/a.png.json",
        read_output,
        ("records/a.png.json",),
        _JSON,
        ("coco/a.png.json", "csv/a.png.csv"),
    ),
    Reader(
        "manifest of a batch",
        "run.json",
        lambda p: claim_output(Storage(str(p.parent)), {"config": "1", "options": {"a": 1}}, False),
        ("manifest.json",),
        _JSON,
    ),
]
