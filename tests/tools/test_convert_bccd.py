"""The command as a user runs it: options, messages, exit status, interruption, a full disk."""

import csv
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bccd_d2.commands import run_command
from bccd_d2.conversion.splits import read_splits
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS, annotation_file
from tests.conversion.drawn import KAGGLE_TRAIN, draw_image, draw_mask, write, write_pairs

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(REPOSITORY / "tools" / "convert_bccd.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def load_main() -> Callable[[list[str]], int]:
    """``main`` of the command, to be run in this process: to start one takes longer than to convert a small folder."""
    spec = importlib.util.spec_from_file_location("convert_bccd", COMMAND[1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


Run = Callable[..., str]
MAIN = load_main()


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Runs the command as ``run_command`` would and gives what it said on both streams."""

    def run(*arguments: object, status: int = 0) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as ended:
            run_command(lambda: MAIN(list(map(str, arguments))))
        captured = capsys.readouterr()
        said = captured.out + captured.err + caplog.text
        assert ended.value.code == status, said
        return said

    return run


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "data", [f"s{n % 4}_{n}" for n in range(12)])


def test_convert_check_and_masks(root: Path, tmp_path: Path, run: Run) -> None:
    said = run("--root", root, "--output", tmp_path / "out", "--workers", 2)
    assert "train: 8 images, 16 annotations" in said
    assert "components: 36" in said and "specks dropped: 12" in said
    train = annotation_file(tmp_path / "out", "train")
    assert run("--check", train).startswith(f"{train}: no faults (images checked too)")
    assert (
        read_coco(train)["info"]["description"] == "Blood-cell instances"
    )  # from masks or other annotations
    masks = tmp_path / "masks"
    assert "8 label images" in run("--to-masks", train, "--output", masks, "--mask-format", "tif")
    assert len(list(masks.glob("*.tif"))) == 8
    with (masks / "labels.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 17


def test_options_reach_the_conversion(root: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    options = ["--min-area", 5, "--min-area-relative", "0.05", "--fill-holes", 9]
    options += ["--cut-touching", "0.4", "--border", "ignore", "--polygons"]
    options += ["--ignore-unlabelled", "--group-prefix", "_", "--ratios", 0.5, 0.25, 0.25, "--seed", 3]
    run("--root", root, "--output", out, "--workers", 1, *options)
    written = read_coco(annotation_file(out, "train"))["info"]["options"]
    assert written["spec"]["instances"] == {
        "min_area": 5,
        "min_area_relative": 0.05,
        "connectivity": 8,
        "fill_holes": 9,
        "cut": 0.4,
    }
    assert written["annotations"]["border"] == "ignore"
    assert written["annotations"]["unlabelled"] is True
    assert written["split"]["mode"] == "prefix"
    assert [len(stems) for stems in read_splits(out / "splits.json").values()] == [6, 3, 3]


def test_the_command_line_overrules_the_spec(root: Path, tmp_path: Path, run: Run) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("instances: {min_area: 5, connectivity: 4}\n", encoding="utf-8")
    run("--root", root, "--output", tmp_path / "out", "--spec", spec, "--min-area", 50, "--max-images", 4)
    written = read_coco(annotation_file(tmp_path / "out", "train"))["info"]["options"]
    assert (written["spec"]["instances"]["min_area"], written["spec"]["instances"]["connectivity"]) == (50, 4)
    assert written["split"]["max_images"] == 4


def test_every_way_to_split(root: Path, tmp_path: Path, run: Run) -> None:
    for n in range(3):
        write_pairs(root, [f"t{n}"], "BCCD Dataset with mask/test")
    for n in range(4):  # the same cells in another stain, and in a third
        write(root / KAGGLE_TRAIN / "original" / f"s{n}_{n}.png", draw_image(draw_mask(n)) // 2)
        write(root / KAGGLE_TRAIN / "original" / f"s{n}_{n + 4}.png", 255 - draw_image(draw_mask(n + 4)))
    table = tmp_path / "slides.csv"
    stems = [f"s{n % 4}_{n}" for n in range(12)] + ["t0", "t1", "t2"]
    table.write_text("stem,slide\n" + "".join(f"{stem},{stem[:2]}\n" for stem in stems), encoding="utf-8")
    lists = tmp_path / "lists.json"
    listed = {
        "train": [["/x/s0_0.png", "/y"], ["/x/gone.png", "/y"]],
        "val": [["/x/t1.png", "/y"]],
        "test": [],
    }
    lists.write_text(json.dumps(listed), encoding="utf-8")
    ways = {
        "official": ["--official"],
        "table": ["--group-table", table, "--group-column", "slide"],
        "stain": ["--stain-clusters", 3, "--ratios", 0.5, 0.5, 0],
        "file": ["--split-file", lists],
    }
    splits = {}
    for way, options in ways.items():
        said = run("--root", root, "--output", tmp_path / way, "--workers", 1, *options)
        assert ("no image in test" in said) == (way in ("stain", "file"))
        splits[way] = read_splits(tmp_path / way / "splits.json")
    assert splits["official"]["test"] == ["t0", "t1", "t2"]
    assert sum(map(len, splits["table"].values())) == 15
    assert json.loads((tmp_path / "file" / "splits.json").read_text(encoding="utf-8"))["missing"] == ["gone"]
    darker, inverted = {f"s{n}_{n}" for n in range(4)}, {f"s{n}_{n + 4}" for n in range(4)}
    for part in PARTS:
        assert len(darker & set(splits["stain"][part])) in (0, 4)
        assert len(inverted & set(splits["stain"][part])) in (0, 4)
    assert splits["file"] == {"train": ["s0_0"], "val": ["t1"], "test": []}
    said = run("--root", root, "--output", tmp_path / "x", "--official", "--stain-clusters", 3, status=2)
    assert "not allowed with" in said


def test_faults_of_a_file_are_all_listed(root: Path, tmp_path: Path, run: Run) -> None:
    run("--root", root, "--output", tmp_path / "out")
    path = annotation_file(tmp_path / "out", "train")
    document = read_coco(path)
    document["annotations"][0] |= {"area": 1, "iscrowd": 2}
    document["annotations"][1]["category_id"] = 9
    path.write_text(json.dumps(document), encoding="utf-8")
    said = run("--check", path, status=1)
    assert "repaired as it was read: 1 areas that are missing or differ from the outline's" in said
    assert "iscrowd 2, expected 0 or 1" in said
    assert "unknown category_id 9" in said
    assert "2 faults (images checked too)" in said
    path.write_text("[1, 2", encoding="utf-8")
    assert "not JSON" in run("--check", path, status=1)
    assert "no such file" in run("--check", tmp_path / "absent.json", status=1)
    path.write_text("[]", encoding="utf-8")
    assert "a list, expected an object" in run("--check", path, status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--root and --output are needed"),
        (["--to-masks", "x.json"], 2, "--to-masks needs --output"),
        (["--check", "x", "--to-masks", "y"], 2, "--check: not together with --to-masks"),
        (["--root", "absent", "--output", "x"], 1, "absent: no such folder"),
        (["--root", ".", "--output", "x", "--spec", "nope"], 1, "'nope': no such file"),
        (["--root", ".", "--output", "x", "--min-area", "0"], 1, "min_area 0"),
        (["--root", ".", "--output", "x", "--workers", "0"], 1, "workers 0"),
        (["--root", ".", "--output", "x", "--group-table", "t.csv"], 1, "'table' without a column"),
        (["--to-masks", "absent.json", "--output", "x"], 1, "absent.json: no such file"),
    ],
)
def test_wrong_command_lines(
    tmp_path: Path, arguments: list[str], status: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path, ["a"])
    monkeypatch.chdir(tmp_path)
    assert message in run(*arguments, status=status)
    assert not (tmp_path / "x").exists()


def test_skip_bad_lists_at_the_end(root: Path, tmp_path: Path, run: Run) -> None:
    (root / KAGGLE_TRAIN / "mask" / "s0_0.png").unlink()
    (root / KAGGLE_TRAIN / "original" / "s1_1.png").write_bytes(b"")
    said = run("--root", root, "--output", tmp_path / "out", status=1)
    assert "s0_0.png: image without mask" in said
    said = run("--root", root, "--output", tmp_path / "out", "--skip-bad")
    left_out = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 2
    assert "2 files left out" in said


def many_large_pairs(root: Path) -> Path:
    mask = np.tile(draw_mask(), (10, 10))
    image = draw_image(mask)
    for n in range(40):
        write(root / "images" / f"{n}.png", image)
        write(root / "masks" / f"{n}.png", mask)
    return root


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "2"), (signal.SIGTERM, "1"), (signal.SIGTERM, "2")]
)
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: int, workers: str) -> None:
    root = many_large_pairs(tmp_path / "data")
    out = tmp_path / "out"
    command = [*COMMAND, "--root", str(root), "--output", str(out), "--workers", workers]
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit = time.monotonic() + 60
    while not list(out.glob(".unfinished-*/annotations/*.json")):
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)  # all processes of the group, as a terminal does
    output = "".join(process.communicate(timeout=60))
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not out.exists()
