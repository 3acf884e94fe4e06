"""tools/adapt.py --types: own types from folders of crops and from a corrected cells.csv."""

import csv
import importlib.util
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml

from bccd_d2.cell_types import adaptation
from bccd_d2.cell_types.adaptation import start_from
from bccd_d2.cell_types.classifier import TypeCard, TypeClassifier, load_classifier, save_classifier
from bccd_d2.cell_types.typer import CellTyper
from bccd_d2.errors import InputError
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from tests.conftest import REPOSITORY

LEVELS = {"lymphocyte": 200, "myelocyte": 60, "blast": 20}
GROUPS = {"myelocyte": "immature granulocyte", "promyelocyte": "immature granulocyte"}
CARD = TypeCard("white", ("lymphocyte", "myelocyte", "promyelocyte"), 2.0, 32, groups=GROUPS, threshold=0.4)
COLUMNS = (
    "image", "class", "x_px", "y_px", "equivalent_diameter_px", "touches_border", "equivalent_diameter_um", "type",
    "subtype",
)  # fmt: skip


def adapt(*arguments):
    spec = importlib.util.spec_from_file_location("adapt_tool", REPOSITORY / "tools" / "adapt.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    torch.manual_seed(0)
    return save_classifier(TypeClassifier(CARD), tmp_path_factory.mktemp("start"), "types_white")


def disc(image, x, y, radius, level):
    cv2.circle(image, (x, y), radius, (level, level, level), -1)


def write_crops(root, **numbers):
    for name, number in numbers.items():
        (root / name).mkdir(parents=True)
        for index in range(number):
            image = np.full((60, 60, 3), 130, np.uint8)
            disc(image, 30, 30, 15, LEVELS.get(name, 90))
            cv2.imwrite(str(root / name / f"{index}.png"), image)
    return root


def write_table(root, images, rows, missing=()):
    """Images of 3 x 2 white discs, and a table of ``rows``: image, number of the disc, type, and other columns."""
    (root / "images").mkdir(parents=True)
    for name in images:
        image = np.full((80, 120, 3), 130, np.uint8)
        for index in range(6):
            disc(image, 20 + 40 * (index % 3), 20 + 40 * (index // 3), 12, list(LEVELS.values())[index % 3])
        cv2.imwrite(str(root / "images" / name), image)
    columns = [name for name in COLUMNS if name not in missing]
    with (root / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for name, index, kind, changes in rows:
            place = {"x_px": 20 + 40 * (index % 3), "y_px": 20 + 40 * (index // 3)}
            size = {"equivalent_diameter_px": 24, "touches_border": False}
            writer.writerow({"image": name, "class": "WBC", "type": kind, **place, **size, **changes})
    return root / "cells.csv", "--images", root / "images"


def test_folders_of_own_types_make_a_classifier_that_predicts(start, tmp_path, capsys):
    crops = write_crops(tmp_path / "crops", lymphocyte=10, blast=10, smudge=5)
    cv2.imwrite(str(tmp_path / "crops" / "loose.png"), np.zeros((9, 9, 3), np.uint8))
    given = ["--types", crops, "--diameter", 20, "--weights", start, "--output", tmp_path / "ours"]
    adapt(*given, "epochs", 2, "learning_rate", "1e-3")
    printed = capsys.readouterr().out
    assert re.search(r"\| 5 held-back cells +\| before +\| +after \|", printed)
    assert re.search(r"\| F1 of blast \(2\) +\| no such type \|", printed)
    assert "F1 of lymphocyte (2)" in printed
    card = load_classifier(tmp_path / "ours" / "types_white.safetensors").card
    assert card.types == ("blast", "lymphocyte", "smudge")
    assert (card.crop_diameters, card.crop_size, card.groups) == (2.0, 32, {})
    # Too few cells to choose these by.
    assert (card.temperature, card.threshold) == (CARD.temperature, CARD.threshold)
    assert card.about["training"]["epochs"] == 2
    assert (tmp_path / "ours" / "types_white_worst.png").is_file()
    cells = Cells.from_masks(40, 40, [np.ones((40, 40), bool)], classes=[0])
    typer = CellTyper.load([tmp_path / "ours" / "types_white.safetensors"])
    found = typer(ArraySource(np.zeros((40, 40, 3), np.uint8)), cells, ["WBC"], diameter_px=20)
    assert found.names[0] in (*card.types, "other")


def test_a_corrected_table_keeps_the_types_of_the_start_and_counts_what_it_leaves_out(
    start, tmp_path, caplog
):
    names = ["a.png", "b.png", "c.tif"]
    fine = {"subtype": "myelocyte"}
    rows = [(name, k, kind, {}) for name in names for k, kind in ((0, "lymphocyte"), (3, "lymphocyte"))]
    rows += [(name, 1, "immature granulocyte", fine) for name in names]
    rows += [(names[0], 2, "", {}), (names[0], 5, "other", {}), (names[1], 2, "promyelocyte", {})]
    rows += [("gone.png", 0, "lymphocyte", {}), (names[1], 5, "normal", {"class": "RBC"})]
    table = write_table(tmp_path, names, rows)
    adapt("--types", *table, "--weights", start, "--output", tmp_path / "ours", "epochs", 1)
    assert load_classifier(tmp_path / "ours" / "types_white.safetensors").card.types == CARD.types
    for line in (
        "1 cells of 1 images that are not in",
        "1 cells without a type are left out",
        "1 cells of type other are left out",
        "1 cells that are no white cells are left out",
        "1 cell of type promyelocyte is left out",
    ):
        assert line in caplog.text, line
    about = yaml.safe_load((tmp_path / "ours" / "types_white.yaml").read_text())["about"]
    counts = about["training"]["cells"], sum(about["validation"]["cells"].values())
    assert counts == (6, 3)  # images are held back, of three cells each


def test_a_worse_classifier_of_the_same_types_leaves_the_start(start, tmp_path, monkeypatch, capsys):
    crops = write_crops(tmp_path / "crops", lymphocyte=3, myelocyte=3)
    scores = iter((0.9, 0.8))  # before, after
    measure = adaptation.measure_types
    monkeypatch.setattr(adaptation, "measure_types", lambda *a: replace(measure(*a), macro_f1=next(scores)))
    given = ["--types", crops, "--diameter", 20, "--weights", start, "--output", tmp_path / "ours"]
    adapt(*given, "epochs", 1)
    assert "the folder holds the start" in capsys.readouterr().out
    assert (tmp_path / "ours" / start.name).read_bytes() == start.read_bytes()


def test_training_further_leaves_the_statistics_of_batch_norms(start, tmp_path):
    crops = write_crops(tmp_path / "crops", lymphocyte=3, blast=3)
    given = ["--types", crops, "--diameter", 20, "--weights", start, "--output", tmp_path / "ours"]
    adapt(*given, "epochs", 2, "frozen_epochs", 0)
    before = load_classifier(start).state_dict()
    after = load_classifier(tmp_path / "ours" / start.name).state_dict()
    same = {name for name, tensor in after.items() if tensor.equal(before[name])}
    statistics = {name for name in after if "running_" in name}
    assert (
        statistics
        and statistics <= same
        and any(name.endswith("conv_pw.weight") for name in after.keys() - same)
    )


def test_crops_of_a_table_are_cut_as_the_prediction_cuts_them(tmp_path):
    rows = [("a.png", k, "lymphocyte", {}) for k in range(6)]
    table, _, images = write_table(tmp_path, ["a.png"], rows)
    small, types = adaptation._read_table(table, images, CARD, None)
    assert types == ["lymphocyte"] and len(set(small.images)) == 6  # of one image, cells can be held back
    # White cells of 24 px are of a smear whose red ones have 15; so 15 px and 0.5 um per pixel are the same.
    given, _ = adaptation._read_table(table, images, CARD, 15.0)
    np.testing.assert_array_equal(small.pixels, given.pixels)
    rows = [("a.png", k, "lymphocyte", {"equivalent_diameter_um": 12}) for k in range(6)]
    other, _, _ = write_table(tmp_path / "um", ["a.png"], rows)
    microns, _ = adaptation._read_table(other, images, CARD, None)
    np.testing.assert_array_equal(small.pixels, microns.pixels)
    (tmp_path / "counts.csv").write_text("image,class,diameter_px\na.png,WBC,30.0\n")
    large, _ = adaptation._read_table(table, images, CARD, None)
    assert (large.pixels != small.pixels).any()
    np.testing.assert_array_equal(large.pixels, adaptation._read_table(table, images, CARD, 30.0)[0].pixels)


def test_the_last_layer_starts_from_types_of_the_same_name():
    torch.manual_seed(1)
    start = TypeClassifier(CARD)
    torch.nn.init.normal_(start.head.bias)
    card = TypeCard("white", ("blast", "immature granulocyte", "lymphocyte"), 2.0, 32)
    rows, new = start.head.weight, start_from(start, card).head.weight
    expected = torch.stack([rows.mean(0), rows[1:].mean(0), rows[0]])
    assert torch.equal(new, expected) and start_from(start, CARD).head.bias.equal(start.head.bias)
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(start_from(start, CARD).logits(crops), start.logits(crops), atol=1e-6)


LYMPHOCYTES = [("a.png", k, "lymphocyte", {}) for k in range(6)]


@pytest.mark.parametrize(
    ("rows", "missing", "message"),
    [
        (LYMPHOCYTES, ["type"], "no column type; tools/predict.py --types writes it; found image, class"),
        (LYMPHOCYTES, ["x_px", "y_px"], "no column x_px, y_px"),
        ([("a.png", 0, "", {})], [], "expected white cells with a type"),
        ([("b.png", 0, "lymphocyte", {})], [], "expected white cells with a type"),
        ([*LYMPHOCYTES, ("a.png", 1, "blast", {})], [], "found 1 blast, 6 lymphocyte"),
        ([("a.png", 0, "blast", {"x_px": "12,5"})], [], r"line 2: expected a number, found x_px '12,5'"),
        ([("a.png", 0, "blast", {"touches_border": "WAHR"})], [], "expected True or False, found .* 'WAHR'"),
        ([("a.png", 0, "blast", {"x_px": 121})], [], r"line 2: a cell at 121, 20, but .*120x80 pixels"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(start, tmp_path, rows, missing, message):
    table = write_table(tmp_path, ["a.png"], rows, missing)
    with pytest.raises(InputError, match=message):
        adapt("--types", *table, "--weights", start, "--output", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        ({"blast": 3}, [], "expected two or more folders, one per type, none called other; found blast"),
        ({"blast": 3, "other": 3}, [], "none called other"),
        ({"blast": 3, "smudge": 0}, [], "expected images of smudge, found none"),
        ({"blast": 3, "smudge": 1}, [], "found 3 blast, 1 smudge"),
        ({"blast": 3, "smudge": 3}, ["epoch", 3], "options epoch 3: expected KEY VALUE with keys of"),
        ({"blast": 3, "smudge": 3}, ["epochs", "few"], "options epochs few"),
        ({"blast": 3, "smudge": 3}, ["epochs", 0], "epochs >= 1"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(start, tmp_path, numbers, options, message):
    crops = write_crops(tmp_path / "crops", **numbers)
    given = ["--types", crops, "--diameter", 20, "--weights", start, "--output", tmp_path / "ours"]
    with pytest.raises(InputError, match=message):
        adapt(*given, *options)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--output", "ours"], InputError, "--diameter: expected the width of a red cell"),
        (["--output", "ours", "--diameter", -1], InputError, "--diameter: expected a number above 0"),
        (["--output", "start", "--diameter", 20], InputError, "holds the classifier to start from"),
        (["--output", "ours", "--replay", "x"], SystemExit, "--replay: not together with --types"),
        (["--output", "ours", "--from", "coco"], SystemExit, "--from: not together with --types"),
        (["--output", "ours", "--model", "types_blue"], InputError, "types_blue.safetensors is not there"),
    ],
)
def test_options_that_do_not_fit_are_refused(start, tmp_path, options, error, message, capsys):
    crops = write_crops(tmp_path / "crops", blast=3, smudge=3)
    options = [{"ours": tmp_path / "ours", "start": start.parent}.get(word, word) for word in options]
    weights = [] if "--model" in options else ["--weights", start]
    with pytest.raises(error) as caught:
        adapt("--types", crops, *weights, *options)
    assert message in str(caught.value) + capsys.readouterr().err
    with pytest.raises(InputError, match=r"--images: expected the folder of the images"):
        adapt("--types", write_table(tmp_path, ["a.png"], LYMPHOCYTES)[0], "--output", tmp_path / "ours")
