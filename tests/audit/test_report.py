"""The audit from end to end: the page, the JSON, the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from bccd_d2.audit.run import audit_dataset
from bccd_d2.conversion.convert import convert_dataset
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.errors import InputError
from bccd_d2.io.masks import MaskRule
from tests.audit.scene import PLACES, blank, cells, disc, paint, write_pair
from tests.html_page import Page
from tools.audit_dataset import main

REPOSITORY = Path(__file__).resolve().parents[2]


def read(out):
    return json.loads((out / "audit.json").read_text(encoding="utf-8")), Page(
        (out / "audit.html").read_text(encoding="utf-8")
    )


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """Eight images in train/, two in test/: one mirrored copy across, one with planted faults, a bad file."""
    root = tmp_path_factory.mktemp("audit") / "Synthetic <smears>"
    random = np.random.default_rng(1)
    for number in range(8):
        mask = blank()
        for x, y in PLACES:
            disc(mask, int(x + random.integers(-18, 19)), int(y + random.integers(-14, 15)))
        write_pair(root / "train", f"smear {number}", paint(mask, seed=number), mask)
        if number == 3:
            copy = np.ascontiguousarray(mask[:, ::-1])
            write_pair(root / "test", "mirrored", paint(copy, seed=9), copy)
    mask, shown = cells(), cells()
    for drawn in (mask, shown):
        disc(drawn, 78, 50)  # two cells in one outline
    disc(shown, 165, 140)  # a cell without an outline
    write_pair(root / "test", "Gül & 'Ö' <b>", paint(shown), mask, suffix=".jpg")
    write_pair(root / "train", "broken", paint(mask), mask)
    (root / "train/original/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    write_pair(root / "train", "lonely", paint(mask), mask)
    (root / "train/mask/lonely.png").unlink()
    return root


@pytest.fixture(scope="module")
def audited(smears, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    assert main(["--root", str(smears), "--output", str(out), "--workers", "1"]) == 0
    return read(out)


def test_counts_are_those_that_were_drawn(audited):
    document, _ = audited
    assert document["files"]["images"] == 10
    assert document["cells"]["total"] == 9 * 12 + 12
    assert document["cells"]["per_image"]["min"] == document["cells"]["per_image"]["max"] == 12
    assert document["parts"] == {"train": 8, "test": 2}
    kinds = {(k["image_format"], k["width"], k["height"]): k["images"] for k in document["files"]["kinds"]}
    assert kinds == {("PNG", 320, 240): 9, ("JPEG", 320, 240): 1}
    found = {finding["kind"]: finding["count"] for finding in document["findings"]}
    assert found["unlabelled"] == 1
    assert found["merged"] >= 1
    assert found["speck"] == found["faint"] == found["fragment"] == found["cut_unlabelled"] == 0


def test_the_copy_across_the_split_is_told(audited):
    document, page = audited
    (pair,) = document["similar"]["pairs"]
    assert set(pair["images"]) == {"smear 3", "mirrored"}
    assert pair["across_parts"]
    assert pair["orientation"] == "mirrored"
    found = {finding["kind"]: finding["count"] for finding in document["set_findings"]}
    assert found["similar"] == found["leak"] == 1
    assert "1 of them in different parts of the split" in page.words


def test_bad_files_are_listed_and_not_fatal(audited):
    document, page = audited
    assert page.open == []
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert len(document["faults"]) == 2
    assert any("lonely.png: image without mask" in fault for fault in document["faults"])
    assert any(fault.startswith("train/original/broken.png") for fault in document["faults"])
    for fault in document["faults"]:
        assert " ".join(fault.split()) in page.words


def test_worst_image_says_why_and_is_outlined(audited):
    document, page = audited
    image = next(image for image in document["images"] if image["stem"] == document["worst"][0])
    assert image["why"] == (
        "1 outline seems to hold more than one cell and 1 place looks like a cell without an outline, of "
        "12 outlined cells."
    )
    assert image["why"] in page.words
    assert "merged" in page.classes
    assert "unlabelled" in page.classes
    assert {issue["kind"] for issue in image["issues"]} == {"merged", "unlabelled"}
    assert document["worst"][0] == "Gül & 'Ö' <b>"
    assert "Synthetic <smears>" in page.words
    assert "Gül & 'Ö' <b>.jpg" in page.words


def test_same_input_same_files_whatever_the_number_of_workers(smears, tmp_path):
    pages = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        audit_dataset(smears, out, max_images=4, workers=workers)
        pages.append(((out / "audit.html").read_bytes(), (out / "audit.json").read_bytes()))
    assert pages[0] == pages[1]


def test_conversion_brings_parts_and_unused_images(smears, tmp_path):
    convert_dataset(smears, tmp_path / "coco", skip_bad=True)
    for path in (tmp_path / "coco/annotations").glob("*.json"):
        content = json.loads(path.read_text())
        content["categories"] = [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}]
        for annotation in content["annotations"][::3]:
            annotation["category_id"] = 2
        path.write_text(json.dumps(content))
    document = audit_dataset(smears, tmp_path / "out", coco=tmp_path / "coco")
    assert sum(document["parts"].values()) == 10
    assert list(document["parts"]) == ["train", "val", "test"]
    table = {row["name"]: row["total"] for row in document["classes"]}
    assert sum(table.values()) == 120
    assert table["WBC"] == pytest.approx(40, abs=2)
    page = read(tmp_path / "out")[1]
    assert "WBC" in page.words


def test_classes_of_the_mask_are_counted(tmp_path):
    mask = cells() // 255
    mask[:, :95][mask[:, :95] > 0] = 2  # the first column of three cells
    write_pair(tmp_path, "one", paint(mask), mask)
    rule = MaskRule(kind="classes", values=((0, "background"), (1, "RBC"), (2, "WBC")))
    document = audit_dataset(tmp_path, tmp_path / "out", DatasetSpec(mask=rule))
    assert {row["name"]: row["total"] for row in document["classes"]} == {"RBC": 9, "WBC": 3}


def test_a_set_without_a_cell_still_makes_a_page(tmp_path):
    for number in range(3):
        write_pair(tmp_path / "data", f"{number}", paint(blank(), seed=number), blank())
    document = audit_dataset(tmp_path / "data", tmp_path / "out")
    assert document["summary"] == ["3 images without a single outlined cell."]
    assert document["cells"]["total"] == 0
    page = read(tmp_path / "out")[1]
    assert page.open == []
    assert "The mask is empty." in page.words


def test_a_data_set_without_masks_is_refused(smears, tmp_path):
    with pytest.raises(InputError, match="the dataset spec knows no masks"):
        main(["--root", str(smears), "--output", str(tmp_path / "out"), "--spec", "txl_pbc"])
    assert not (tmp_path / "out").exists()


def test_existing_output_is_kept_unless_told_otherwise(smears, tmp_path, capsys):
    (tmp_path / "audit.json").write_text("mine")
    with pytest.raises(InputError, match=r"audit.json.*--overwrite"):
        main(["--root", str(smears), "--output", str(tmp_path)])
    assert (tmp_path / "audit.json").read_text() == "mine"
    assert not (tmp_path / "audit.html").exists()
    assert main(["--root", str(smears), "--output", str(tmp_path), "--overwrite", "--workers", "1"]) == 0
    assert "10 images show 120 outlined cells" in capsys.readouterr().out


@pytest.mark.real_data
def test_real_pairs(real_pairs_root, tmp_path):
    document = audit_dataset(real_pairs_root, tmp_path, workers=2)
    assert document["files"]["images"] == 60
    assert document["cells"]["total"] == 4347
    kinds = {
        (k["image_format"], k["mask_format"], k["width"], k["height"]): k["images"]
        for k in document["files"]["kinds"]
    }
    assert kinds == {("PNG", "PNG", 1600, 1200): 56, ("JPEG", "PNG", 1944, 1383): 4}
    assert 90 < document["cells"]["diameter"]["median"] < 105
    assert document["similar"]["pairs"] == []
    assert document["faults"] == []
    found = {finding["kind"]: finding["count"] for finding in document["findings"]}
    assert 200 < found["merged"] < 350
    assert 200 < found["cut_unlabelled"] < 300
    assert found["unlabelled"] < 20
    assert min(image["separation"] for image in document["images"]) > 0.8
    assert len(document["worst"]) == 12
    page = read(tmp_path)[1]
    assert page.open == []
    assert all(reference.startswith("data:image/") for reference in page.references)
