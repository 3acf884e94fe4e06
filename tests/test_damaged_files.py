"""Whatever is in a file, its readers end with an error of ours; benchmarks/fuzz_readers.py does the same for long."""

import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fuzz_examples import COCO, example
from fuzz_mutations import FILES
from fuzz_readers import place, read_input, write_input
from fuzz_targets import READERS
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.errors import InputError
from bccd_d2.io.images import open_source

BY_NAME = {reader.name: reader for reader in READERS}


@pytest.mark.parametrize("name", BY_NAME)
def test_valid_files_are_read(tmp_path, name):
    reader = BY_NAME[name]
    for number, valid in enumerate(reader.examples):
        path = place(reader, tmp_path / str(number))
        path.write_bytes(example(valid))
        reader.read(path)


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(draw=st.randoms(use_true_random=False))
def test_broken_files_end_in_an_error_of_ours(name, draw):
    with tempfile.TemporaryDirectory() as folder:
        outcome = read_input(BY_NAME[name], write_input(BY_NAME[name], draw, Path(folder)))
    assert outcome.kind != "foreign", outcome.detail


@pytest.mark.parametrize("name", BY_NAME)
def test_other_files_and_folders_end_in_an_error_of_ours(tmp_path, name):
    for number, content in enumerate([*FILES, None]):
        path = place(BY_NAME[name], tmp_path / str(number))
        path.mkdir() if content is None else path.write_bytes(content)
        outcome = read_input(BY_NAME[name], path)
        assert outcome.kind != "foreign", (content and content[:40], outcome.detail)


def coco(**changes):
    """The COCO example with other values in its first annotation, or at the top."""
    document = json.loads(example(COCO))
    for key, value in changes.items():
        if key in document:
            document[key] = value
        else:
            document["annotations"][0][key] = value
    return json.dumps(document).encode()


def results(**changes):
    entries = json.loads(example("results.json"))
    entries[0].update(changes)
    return json.dumps(entries).encode()


def npy(shape, kind="<u2"):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


SLIDE = [
    {"image_id": 1, "category_id": 1, "segmentation": {"size": [2**20, 2**20], "counts": [0, 2**40 - 1, 1]}}
]
LARGE = [{"id": 1, "file_name": "a.png", "height": 2**20, "width": 2**20}]
DIGITS = 10**400
NO_NAME = [{"id": 1, "file_name": "\ud800.png", "height": 40, "width": 48}]
# Each was another exception, a crash or gigabytes before.
FOUND = [
    ("NumPy mask", npy((10**5, 10**5)), "not a plain NumPy array"),
    ("NumPy mask", npy((2, 2), "<U1"), "array of type <U1, expected numbers"),
    ("COCO, checked", coco(area=DIGITS, bbox=[0.5, 0.5, DIGITS, DIGITS]), None),
    ("COCO, checked", coco(images=[{**LARGE[0], "width": DIGITS}]), None),
    ("COCO, evaluated", coco(image_id=[1]), r"unknown image_id \[1\]"),
    ("COCO, evaluated", coco(category_id={}), "unknown category_id {}"),
    ("COCO, evaluated", coco(bbox=[DIGITS, 0, 1, 1]), None),
    ("COCO, evaluated", coco(info=[1]), "expected an object with the path 'image_root'"),
    ("COCO, evaluated", coco(images=LARGE, annotations=SLIDE), r"a run of 2\^32 pixels or more"),
    (
        "COCO, evaluated",
        coco(images=LARGE, segmentation=[[0, 0, 2**20, 0, 0, 9] * 9]),
        "polygons in an image of",
    ),
    ("COCO, evaluated", coco(segmentation=[[0, 0, 180, 0, 0, 9] * 4000]), "polygons with an outline of"),
    ("COCO, for training", coco(categories=[1]), r"categories\[0\]: no object"),
    ("COCO, for training", coco(image_id=None), "unknown image_id None"),
    ("COCO, for training", coco(area=DIGITS, id=2, bbox=[]), None),
    ("COCO, for training", coco(images=NO_NAME), "is not there"),
    ("COCO, for training", coco(iscrowd="x"), "iscrowd 'x', expected 0 or 1"),
    (
        "COCO, for training",
        coco(segmentation={"size": [40, 48], "counts": [-1, 1921]}),
        "expected a string or a list",
    ),
    ("COCO, for training", coco(info={"image_root": 3}), "expected an object with the path 'image_root'"),
    ("COCO results", results(image_id={}), "image_id {}, expected a number or a name"),
    ("COCO results", json.dumps([{"file_name": []}]).encode(), "no key 'score'"),
    ("COCO to label images", coco(area="x"), None),
    ("COCO to label images", coco(images=NO_NAME), "expected a name that a file can have"),
    (
        "COCO to label images",
        coco(images=[{**NO_NAME[0], "file_name": "a\0.png"}]),
        "a name that a file can have",
    ),
    (
        "COCO to label images",
        coco(images=[{**LARGE[0], "height": 2**30}], annotations=[]),
        "do not fit into memory",
    ),
    ("COCO results", results(category_id=[]), r"category_id \[\], expected a number"),
    (
        "split JSON",
        b'{"train": ["\\ud800"], "val": [], "test": [], "sha256": ""}',
        "do not agree with its sha256",
    ),
    ("configuration", b"", "'None', expected keys and values"),
    ("configuration", b"- a", "expected keys and values"),
    ("configuration", b"_BASE_: a.yaml", "_BASE_ leads back to this file"),
    ("configuration", b"_BASE_: [1]", "_BASE_: 1, expected the path of a YAML file"),
    ("configuration", b"a: !!python/object/apply:os.getcwd []", "not YAML"),
    ("configuration", b"MODEL: {DEVICE: null}", "MODEL.DEVICE: expected a value such as 'cuda', found None"),
    (
        "configuration",
        b"TEST: {TTA: {SCALES: [x]}}",
        r"TEST.TTA.SCALES: expected values such as \[1.0\], found",
    ),
    ("configuration", b"INPUT: {SCALE: .nan}", "INPUT.SCALE: expected finite numbers, found nan"),
    ("ablation plan", b"\xff", "not YAML"),
    ("ablation plan", b"{1: 2, a: 3}", "expected the keys config, options, seeds, rows"),
    ("checkpoint .pth", b"PK\x03\x04" + bytes(99), "expected a checkpoint, cannot read it"),
    ("checkpoint .pkl", b"", "expected a checkpoint, cannot read it"),
    ("training to resume", b"", "cannot resume from the checkpoint"),
    ("record of a run", b"{", "not JSON"),
    ("record of a run", b"{}", "expected the record of a run"),
    ("metrics.json", b"{}\n[1]\nx\n", "expected one JSON object with an iteration per line"),
    ("record of an image", b'{"key": "k"}', None),
    ("record of an image", example("records/a.png.json").replace(b'"RBC": 1', b'"RBC": 2'), None),
    ("manifest of a batch", b"[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("name", "content", "message"), FOUND)
def test_what_was_found_stays_fixed(tmp_path, name, content, message):
    path = place(BY_NAME[name], tmp_path)
    path.write_bytes(content)
    if message is None:
        BY_NAME[name].read(path)
    else:
        with pytest.raises(InputError, match=message):
            BY_NAME[name].read(path)


@pytest.mark.parametrize("reader", ["TIFF mask", "TIFF image"])
@pytest.mark.parametrize("following", [8, 12])
def test_a_chain_of_directories_that_leads_back_is_refused(tmp_path, reader, following):
    """Each directory has many tags, and tifffile follows the chain for minutes."""
    content = bytearray(example("labels.tif"))
    (tags,) = struct.unpack_from("<H", content, 8)
    struct.pack_into("<I", content, 10 + 12 * tags, following)
    if following != 8:  # the second directory begins in the first and leads back to it
        struct.pack_into("<H", content, following, 4)
        struct.pack_into("<I", content, following + 2 + 12 * 4, 8)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match="leads back to byte 8"):
        BY_NAME[reader].read(path)


def test_what_is_valid_stays_valid(tmp_path):
    """An array of the size that its header says; a row of metrics that is not whole yet."""
    path = tmp_path / "a.npy"
    np.save(path, np.eye(4, dtype=np.uint8))
    BY_NAME["NumPy mask"].read(path)
    path = tmp_path / "metrics.json"
    path.write_bytes(example("metrics.json") + b'{"iterat')
    BY_NAME["metrics.json"].read(path)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("PhotometricInterpretation", 1234, "colour space 1234"),
        ("ImageLength", 0, "expected a whole image"),
        ("ImageLength", 200, "16 strips or tiles, expected more"),
        ("TileLength", 0, "pieces of 16x0 pixels"),
    ],
)
def test_tiffs_of_wrong_tags_are_refused(tmp_path, tag, value, message):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[tag].overwrite(value)
    with pytest.raises(InputError, match=message), open_source(path) as source:
        source.read(0, 0, source.width, source.height)
