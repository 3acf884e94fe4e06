"""tools/train_types.py and tools/predict.py --types: a tiny classifier from a folder of crops to every output."""

import csv
import importlib.util
import json

import cv2
import numpy as np
import pytest
import yaml
from roifile import roiread

from bccd_d2.cell_types import training
from bccd_d2.commands import run_command
from bccd_d2.conversion.importers.outlines import read_outlines
from tests.conftest import REPOSITORY
from tests.inference.tiny_network import write_tiny_run


def command(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two types of discs, and a classifier that was trained on them for two epochs."""
    root = tmp_path_factory.mktemp("types")
    generator = np.random.default_rng(0)
    for name, level in (("A", 60), ("B", 200)):
        (root / "data" / "crops" / name).mkdir(parents=True)
        for index in range(10):
            image = generator.integers(120, 140, (60, 60, 3)).astype(np.uint8)
            cv2.circle(image, (30, 30), 15, (level, level, level), -1)
            cv2.imwrite(str(root / "data" / "crops" / name / f"{index}.png"), image)
    content = yaml.safe_load((REPOSITORY / "configs/types/white.yaml").read_text())
    content |= {"crop_size": 32, "epochs": 2, "frozen_epochs": 1, "batch_size": 4, "views": 1}
    content["groups"] = {"myelocyte": "immature granulocyte"}
    content["data"] = {"folders": "crops", "diameter_px": 20, "types": {"A": "myelocyte", "B": "lymphocyte"}}
    (root / "white.yaml").write_text(yaml.safe_dump(content))
    given = ["--config-file", root / "white.yaml", "--data-root", root / "data", "--output", root / "out"]
    command("train_types")([*map(str, given), "--from-scratch"])
    return root


def test_training_leaves_a_classifier_with_its_card_and_figures(folder):
    card = yaml.safe_load((folder / "out" / "types_white.yaml").read_text())
    assert card["types"] == ["myelocyte", "lymphocyte"]
    assert card["about"]["validation"]["cells"] == {"lymphocyte": 2, "myelocyte": 2}
    assert card["temperature"] > 0
    figures = {path.name for path in (folder / "out").glob("*.png")}
    names = ("confusion", "calibration", "worst", "reported_confusion")
    assert figures == {f"types_white_{name}.png" for name in names}


def test_an_interrupted_training_resumes_to_the_same_weights(folder, monkeypatch):
    given = [
        "--config-file",
        folder / "white.yaml",
        "--data-root",
        folder / "data",
        "--output",
        folder / "again",
    ]
    given = [*map(str, given), "--from-scratch"]
    whole = (folder / "out" / "types_white.safetensors").read_bytes()
    save = training._TrainingState.save

    def interrupt(state, epoch):
        save(state, epoch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training._TrainingState, "save", interrupt)
        command("train_types")(given)
    command("train_types")([*given, "--resume"])
    assert (folder / "again" / "types_white.safetensors").read_bytes() == whole
    assert not list((folder / "again").glob("*.checkpoint.pth"))


def test_every_output_holds_the_types(folder, capsys):
    (folder / "run").mkdir()
    write_tiny_run(folder / "run")
    # Its random weights find cells of the last class.
    config = folder / "run" / "config.yaml"
    text = config.read_text()
    config.write_text(
        text.replace("- WBC", "- first").replace("- Platelets", "- WBC").replace("- first", "- Platelets")
    )
    assert config.read_text() != text
    image = np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8)
    (folder / "in").mkdir()
    cv2.imwrite(str(folder / "in" / "a.png"), image)
    out = folder / "predicted"
    given = ["--input", folder / "in", "--output", out, "--run", folder / "run", "--types", folder / "out"]
    given += [
        "--score-threshold",
        "0",
        "--mpp",
        "0.125",
        "--scale",
        "1",
        "--formats",
        "coco,csv,geojson,roi,overlay",
    ]
    assert command("predict")(list(map(str, given))) == 0
    assert "no diagnosis" in capsys.readouterr().out
    with (out / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    white = [row for row in rows if row["class"] == "WBC"]
    assert white
    assert {row["type"] for row in white} <= {"lymphocyte", "immature granulocyte", "other"}
    assert all(0.5 <= float(row["type_probability"]) <= 1 for row in white)
    assert all(row["type"] == row["type_probability"] == "" for row in rows if row["class"] != "WBC")
    document = json.loads((out / "coco" / "a.png.json").read_text())
    types = [cell.get("attributes", {}).get("type", "") for cell in document["annotations"]]
    assert types == [row["type"] for row in rows]
    predictions = json.loads((out / "predictions.json").read_text())
    assert [cell.get("attributes", {}).get("type", "") for cell in predictions] == types
    names = [f"{row['class']}: {row['type']}" if row["type"] else row["class"] for row in rows]
    features = json.loads((out / "geojson" / "a.png.geojson").read_text())["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == names
    assert ["type_probability" in feature["properties"]["measurements"] for feature in features] == [
        bool(kind) for kind in types
    ]
    regions = roiread(out / "roi" / "a.png.zip")
    assert [roi.name.partition(" (")[2].rstrip(")") for roi in regions] == types
    # What reads outlines gets the detector's classes.
    classes = [row["class"] for row in rows]
    for path in (out / "geojson" / "a.png.geojson", out / "roi" / "a.png.zip"):
        assert [outline.class_name for outline in read_outlines(path)] == classes
    with (out / "differential.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    whole = [row for row in white if row["touches_border"] == "False"]
    counted = [row for row in found if row["cells_of"] == "white" and ":" not in row["item"]]
    assert sum(int(row["cells"]) for row in counted) == len(whole)
    # The same folder without types is another run.
    with pytest.raises(SystemExit) as caught:
        run_command(
            lambda: command("predict")(
                [str(part) for part in given if part not in ("--types", folder / "out")]
            )
        )
    assert caught.value.code == 1
