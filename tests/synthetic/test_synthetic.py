"""Synthetic smears: the same seed gives the same bytes, and the truth is exact."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from bccd_d2.errors import InputError
from bccd_d2.synthetic import SyntheticSet, draw_smear, write_synthetic_set
from bccd_d2.synthetic.files import BOXES_FILE, CLASS_COLOURS, DATASET_FOLDER
from bccd_d2.synthetic.slide import Variety

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = REPOSITORY / "tools" / "make_synthetic.py"
EIGHT = np.ones((3, 3), int)
# Small cells in a small picture: as many contacts as in a full one, and quick.
SMALL = {"width": 480, "height": 360, "cell_diameter": (30.0, 50.0)}


def components(mask: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of 8-connected components of at least 100 px, the label map, and the area of every component."""
    labels, count = ndimage.label(mask > 0, EIGHT)
    areas = ndimage.sum_labels(np.ones(mask.shape), labels, np.arange(1, count + 1))
    return int((areas >= 100).sum()), labels, areas


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(COMMAND), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", range(4))
def test_truth_is_one_component_a_cell(seed: int) -> None:
    variety: Variety = "wide" if seed == 3 else "bccd"
    smear = draw_smear(seed, **SMALL, platelets_in_mask=bool(seed % 2), variety=variety)
    count, labels, areas = components(smear.mask)
    masked = smear.masked_cells()
    assert len(masked) > 5
    assert count == len(masked)
    for cell in masked:
        component = np.unique(labels[smear.instances == cell.label])
        assert len(component) == 1
        # Nothing but the cell is in its component.
        assert areas[component[0] - 1] == cell.area


@pytest.mark.parametrize("seed", range(4))
def test_cells_describe_the_instance_map(seed: int) -> None:
    smear = draw_smear(seed, **SMALL)
    assert smear.image.shape == (360, 480, 3)
    assert (smear.image.dtype, smear.instances.dtype, smear.mask.dtype) == (np.uint8, np.uint16, np.uint8)
    assert set(np.unique(smear.mask)) <= {0, 255}
    assert np.unique(smear.instances).tolist() == list(range(len(smear.cells) + 1))
    for index, cell in enumerate(smear.cells):
        assert cell.label == index + 1
        rows, columns = np.nonzero(smear.instances == cell.label)
        assert cell.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert cell.area == len(rows) >= 100
        touches = rows.min() == 0 or columns.min() == 0 or rows.max() == 359 or columns.max() == 479
        assert cell.at_border == touches
        # Half of a cell stays visible when cells are laid; dividing lines take up to 2 px of its rim later.
        assert 0.25 < cell.visible <= 1


def test_platelets_stay_out_of_the_mask_unless_asked_for() -> None:
    seen = 0
    for seed in range(6):
        without, with_them = (draw_smear(seed, **SMALL, platelets_in_mask=flag) for flag in (False, True))
        platelets = [cell.label for cell in without.cells if cell.class_name == "Platelets"]
        seen += len(platelets)
        assert not without.mask[np.isin(without.instances, platelets)].any()
        assert with_them.mask[np.isin(with_them.instances, platelets)].all()
        assert len(with_them.masked_cells()) == len(without.masked_cells()) + len(platelets)
        np.testing.assert_array_equal(without.image, with_them.image)
        np.testing.assert_array_equal(without.instances, with_them.instances)
    assert seen >= 3


def test_set_has_the_kaggle_layout_and_formats(tmp_path: Path) -> None:
    plan = SyntheticSet(images=12, seed=5, width=160, height=120, cell_diameter=(20, 30), test_fraction=0.25)
    counts = write_synthetic_set(tmp_path, plan)
    assert counts["RBC"] > 12
    root = tmp_path / DATASET_FOLDER
    assert [path.name for path in tmp_path.iterdir()] == [DATASET_FOLDER]
    assert sorted(path.name for path in root.iterdir()) == ["test", "train"]
    for part, number in (("train", 9), ("test", 3)):
        assert sorted(path.name for path in (root / part).iterdir()) == ["mask", "original"]
        images = sorted((root / part / "original").iterdir())
        masks = sorted((root / part / "mask").iterdir())
        assert len(images) == number
        assert [path.stem for path in images] == [path.stem for path in masks]
        assert {path.suffix for path in masks} == {".png"}
        for path in masks:
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (120, 160, 3) and mask.dtype == np.uint8
            assert set(np.unique(mask)) == {0, 255}
            assert (mask == mask[..., :1]).all()
    suffixes = [path.suffix for path in root.glob("*/original/*")]
    assert suffixes.count(".jpg") == 1 and suffixes.count(".png") == 11
    assert all(path.read_bytes()[:3] == b"\xff\xd8\xff" for path in root.glob("*/original/*.jpg"))


def test_extras_agree_with_the_instance_map(tmp_path: Path) -> None:
    extras = ("mask-classes", "instances", "boxes")
    plan = SyntheticSet(images=6, seed=2, width=320, height=240, cell_diameter=(25, 35), extras=extras)
    counts = write_synthetic_set(tmp_path, plan)
    boxes = {
        Path(entry["image"]["pathname"]).stem: entry
        for entry in json.loads((tmp_path / BOXES_FILE).read_text())
    }
    totals = dict.fromkeys(CLASS_COLOURS, 0)
    paths = sorted((tmp_path / DATASET_FOLDER).glob("*/instances/*.png"))
    assert len(paths) == len(boxes) == 6
    for path in paths:
        instances = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert instances.dtype == np.uint16 and instances.ndim == 2
        part = path.parents[1]
        mask = cv2.imread(str(part / "mask" / path.name), cv2.IMREAD_GRAYSCALE)
        colours = cv2.imread(str(part / "mask_classes" / path.name))[..., ::-1]
        assert ((colours > 0).any(axis=2) == (instances > 0)).all()
        names = {}
        for label in np.unique(instances)[1:]:
            (colour,) = np.unique(colours[instances == label], axis=0)
            (names[label],) = [name for name, value in CLASS_COLOURS.items() if value == tuple(colour)]
            totals[names[label]] += 1
        entry = boxes[path.stem]
        assert entry["image"]["shape"] == {"r": 240, "c": 320, "channels": 3}
        assert (part / "original" / Path(entry["image"]["pathname"]).name).is_file()
        expected = []
        for label, name in names.items():
            assert bool(mask[instances == label].all()) == (name != "Platelets")
            if name != "Platelets":
                rows, columns = np.nonzero(instances == label)
                corners = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
                expected.append((*map(int, corners), name == "WBC"))
        found = []
        for item in entry["objects"]:
            low, high = item["bounding_box"]["minimum"], item["bounding_box"]["maximum"]
            found.append((low["r"], low["c"], high["r"], high["c"], item["category"] == "leukocyte"))
        assert sorted(found) == sorted(expected)
    assert totals == {name: counts[name] for name in CLASS_COLOURS}


def test_command_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    options = ["--images", 5, "--seed", 9, "--size", "160x120", "--cell-diameter", 20, 30]
    options += ["--extras", "mask-classes,instances,boxes"]
    for name in ("first", "second"):
        result = run("--output", tmp_path / name, *options)
        assert result.returncode == 0, result.stderr
        assert "5 images with" in result.stdout
    first, second = files_below(tmp_path / "first"), files_below(tmp_path / "second")
    assert len(first) == 5 * 4 + 1
    assert first == second


def test_overwrite_replaces_the_set_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "set"
    tiny = {"width": 64, "height": 48, "cell_diameter": (20, 24)}
    write_synthetic_set(out, SyntheticSet(images=2, seed=1, extras=("boxes",), **tiny))
    (out / "notes.txt").write_text("mine")
    before = files_below(out)
    with pytest.raises(InputError, match=r"not empty.*--overwrite"):
        write_synthetic_set(out, SyntheticSet(images=1, seed=2, **tiny))
    assert files_below(out) == before
    write_synthetic_set(out, SyntheticSet(images=1, seed=2, **tiny), overwrite=True)
    after = files_below(out)
    assert after["notes.txt"] == b"mine"
    # Boxes of the earlier set would not match the new one.
    assert len(after) == 3 and BOXES_FILE not in after
    assert not set(after) & set(before) - {"notes.txt"}


def test_interrupted_run_leaves_the_earlier_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"width": 64, "height": 48, "cell_diameter": (20, 24)}
    write_synthetic_set(tmp_path, SyntheticSet(images=1, seed=1, **tiny))
    before = files_below(tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bccd_d2.synthetic.files._write", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_synthetic_set(tmp_path, SyntheticSet(images=1, seed=2, **tiny), overwrite=True)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "number of images: found 0"),
        ({"test_fraction": 1.0}, "test fraction: found 1.0"),
        ({"extras": ("boxes", "masks")}, "extras: found masks"),
        ({"variety": "any"}, "variety: found 'any', expected bccd or wide"),
        ({"width": 10}, "size: found 10x1200"),
        ({"cell_diameter": (80, 80)}, "cell diameter: found 80 to 80"),
        ({"cell_diameter": (5, 20)}, "cell diameter: found 5 to 20"),
    ],
)
def test_bad_plans_leave_nothing_behind(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_synthetic_set(tmp_path / "out", SyntheticSet(**({"images": 1} | changes)))
    assert list(tmp_path.iterdir()) == []
