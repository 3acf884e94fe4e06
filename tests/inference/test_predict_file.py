"""One file that cannot be read, a disk that is full, Ctrl-C: what is finished stays, and is not done again."""

import json
import pickle
import resource

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bccd_d2.errors import InputError
from bccd_d2.inference.collect import collect
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.outputs import Outputs
from bccd_d2.inference.predict_file import FilePredictor, OutputError
from bccd_d2.io.find_images import find_images
from bccd_d2.io.storage import Storage
from tests.inference.drawn_cells import DarkThings


def smear(*places, size=(100, 120)):
    image = np.full((*size, 3), 200, np.uint8)
    for x, y, side in places:
        image[y : y + side, x : x + side] = 40
    return image


@pytest.fixture
def folder(tmp_path):
    """Three images: two cells, one at the right border, none."""
    images = tmp_path / "in"
    images.mkdir()
    places = {"a.png": [(10, 10, 20), (50, 50, 8)], "b.png": [(90, 40, 30)], "c.png": []}
    for name, squares in places.items():
        cv2.imwrite(str(images / name), smear(*squares))
    return images


def outputs(folder, formats=("coco", "csv"), key="model 1"):
    return Outputs(Storage(str(folder.parent / "out")), formats, key)


def run(folder, out, predictor=None):
    predictor = predictor or DarkThings()
    images = find_images([folder])
    pending = [image for image in images if not out.is_finished(*image)]
    FilePredictor(predictor, out).predict_all(pending)
    return collect(images, out), [name.rsplit("/", 1)[-1] for name in predictor.seen]


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_batch_is_images_and_their_sums(folder):
    out = outputs(folder)
    summary, seen = run(folder, out)
    assert seen == ["a.png", "b.png", "c.png"]
    assert (summary.images, summary.failures) == (3, [])
    assert summary.counts.cells == {"RBC": 1, "WBC": 1, "Platelet": 1}
    assert summary.counts.in_frame == {"RBC": 1, "WBC": 1, "Platelet": 0}

    root = folder.parent / "out"
    entries = json.loads((root / "predictions.json").read_text())
    assert [(entry["image_id"], entry["file_name"], entry["category"]) for entry in entries] == [
        (1, "a.png", "WBC"),
        (1, "a.png", "RBC"),
        (2, "b.png", "Platelet"),
    ]
    assert coco_mask.area(entries[2]["segmentation"]) == 900
    # pycocotools takes it as results on the images.
    truth = COCO()
    images = [{"id": n, "file_name": f"{n}.png", "height": 100, "width": 120} for n in (1, 2, 3)]
    truth.dataset = {"images": images, "annotations": [], "categories": [{"id": n} for n in (1, 2, 3)]}
    truth.createIndex()
    assert len(truth.loadRes(str(root / "predictions.json")).getAnnIds(imgIds=[1])) == 2

    cells = pd.read_csv(root / "cells.csv")
    assert cells["image"].tolist() == ["a.png", "a.png", "b.png"]
    assert cells["area_px"].tolist() == [400, 64, 900]
    counts = pd.read_csv(root / "counts.csv").set_index(["image", "class"])
    assert counts.loc[("all images", "all"), "cells"] == 3
    assert counts.loc[("b.png", "Platelet"), "cells_in_frame"] == 0
    assert len(counts) == 4 * 4


def test_broken_files_are_listed_and_do_not_stop_the_others(folder):
    (folder / "aa empty.png").touch()
    (folder / "ab text.png").write_text("no image")
    whole = (folder / "a.png").read_bytes()
    (folder / "ac cut.png").write_bytes(whole[: len(whole) // 2])
    out = outputs(folder)
    summary, _ = run(folder, out)
    assert summary.images == 3
    assert len(summary.failures) == 3
    for failure, name in zip(summary.failures, ("aa empty.png", "ab text.png", "ac cut.png")):
        assert failure.count(name) == 1
    # A broken file keeps its number, and is tried again once it is whole.
    entries = json.loads((folder.parent / "out" / "predictions.json").read_text())
    assert [entry["image_id"] for entry in entries] == [1, 1, 5]
    (folder / "ab text.png").write_bytes(whole)
    summary, seen = run(folder, out)
    assert len(summary.failures) == 2
    assert "ab text.png" in seen and "a.png" not in seen


def test_a_decompression_bomb_is_one_bad_file(folder):
    cv2.imwrite(str(folder / "bomb.png"), smear(size=(200, 200)))
    images, out = find_images([folder]), outputs(folder)
    FilePredictor(DarkThings(), out, max_pixels=15_000).predict_all(images)
    summary = collect(images, out)
    assert summary.images == 3
    assert "bomb.png: 200x200 pixels" in summary.failures[0]


def test_finished_images_are_skipped_until_something_changes(folder):
    out = outputs(folder)
    run(folder, out)
    before = tree(folder.parent / "out")
    assert run(folder, out)[1] == []
    assert tree(folder.parent / "out") == before
    cv2.imwrite(str(folder / "b.png"), smear((5, 5, 40), (60, 60, 30)))
    assert run(folder, out)[1] == ["b.png"]
    (folder.parent / "out" / "csv" / "c.png.csv").unlink()
    assert run(folder, out)[1] == ["c.png"]
    assert run(folder, outputs(folder, key="model 2"))[1] == ["a.png", "b.png", "c.png"]


def test_a_further_format_is_written_for_all_images_and_the_earlier_ones_again(folder):
    run(folder, outputs(folder))
    cv2.imwrite(str(folder / "c.png"), smear((5, 5, 40)))
    assert len(run(folder, outputs(folder, ("geojson",)))[1]) == 3
    assert len(json.loads((folder.parent / "out" / "predictions.json").read_text())) == 4
    assert len(pd.read_csv(folder.parent / "out" / "cells.csv")) == 4
    assert run(folder, outputs(folder))[1] == []
    assert run(folder, outputs(folder, ("coco", "geojson", "csv")))[1] == []


def test_files_that_may_not_grow_further(folder):
    noise = np.random.default_rng(0).integers(150, 255, (100, 120, 3), np.uint8)
    cv2.imwrite(str(folder / "b.png"), noise)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            run(folder, outputs(folder, ("overlay",)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tree(folder.parent / "out")) == ["overlays/a.png.png", "records/a.png.json"]
    assert run(folder, outputs(folder, ("overlay",)))[1] == ["b.png", "c.png"]


def test_an_output_that_cannot_be_made(folder):
    (folder.parent / "out").write_text("a file")
    with pytest.raises(OutputError, match="out: results cannot be written"):
        run(folder, outputs(folder))


def test_pages_are_images_of_their_own(folder):
    pages = np.stack([smear((10, 10, 20)), smear((10, 10, 30), (60, 60, 20))])
    tifffile.imwrite(folder / "stack.tif", pages[..., ::-1], photometric="rgb")
    summary, _ = run(folder, outputs(folder))
    assert summary.images == 5
    entries = json.loads((folder.parent / "out" / "predictions.json").read_text())
    names = [(entry["image_id"], entry["file_name"]) for entry in entries][-3:]
    assert names == [(4, "stack.tif.page001"), *[(5, "stack.tif.page002")] * 2]


def test_microns_of_the_options_win_over_those_of_the_file(folder):
    tifffile.imwrite(
        folder / "d.tif",
        smear((10, 10, 20)),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit=3,
    )
    run(folder, outputs(folder))
    cells = pd.read_csv(folder.parent / "out" / "cells.csv").set_index("image")
    assert cells.loc["d.tif", "area_um2"] == 400 / 4
    assert np.isnan(cells.loc["b.png", "area_um2"])
    other = outputs(folder, key="other")
    run(folder, other, DarkThings(options=PredictionOptions(microns_per_pixel=0.1)))
    cells = pd.read_csv(folder.parent / "out" / "cells.csv").set_index("image")
    assert cells.loc["d.tif", "area_um2"] == pytest.approx(4)
    assert cells.loc["b.png", "area_um2"] == pytest.approx(9)


def test_a_bucket_works_as_a_folder_does(folder, bucket):
    run(folder, outputs(folder))
    for path in folder.iterdir():
        bucket.pipe_file(f"/bucket/in/{path.name}", path.read_bytes())
    bucket.pipe_file("/bucket/in/broken.png", b"no image")
    out = Outputs(Storage("memory://bucket/out"), ("coco", "csv"), "model 1")
    images = find_images(["memory://bucket/in"])
    FilePredictor(DarkThings(), out).predict_all(images)
    summary = collect(images, out)
    assert "memory:///bucket/in/broken.png" in summary.failures[0]
    for name in ("cells.csv", "counts.csv", "coco/a.png.json"):
        assert bucket.cat_file(f"/bucket/out/{name}") == (folder.parent / "out" / name).read_bytes()
    assert all(out.is_finished(*image) for image in images if "broken" not in image[1])


def test_outputs_can_be_sent_to_other_processes_and_records_say_what_was_done(folder):
    out = pickle.loads(pickle.dumps(outputs(folder)))
    record = FilePredictor(DarkThings(), out).predict(folder / "a.png", "a.png")
    assert record["results"] == ["coco/a.png.json", "csv/a.png.csv"]
    assert record["error"] is None
    assert record["images"][0]["counts"]["cells"] == {"RBC": 1, "WBC": 1, "Platelet": 0}
    assert out.record("a.png") == record
    record = FilePredictor(DarkThings(), out).predict(folder / "absent.png", "absent.png")
    assert "absent.png" in record["error"]


def test_an_image_that_needs_too_much_memory_is_one_bad_file(folder):
    class Hungry(DarkThings):
        def predict_source(self, source, options=None, *, progress=None):
            if "b.png" in source.name:
                raise MemoryError
            return super().predict_source(source)

    summary, _ = run(folder, outputs(folder), Hungry())
    assert summary.failures == [f"{folder / 'b.png'}: not enough memory to predict it"]


def test_results_that_were_deleted_meanwhile_are_named(folder):
    out = outputs(folder)
    run(folder, out)
    (folder.parent / "out" / "coco" / "a.png.json").unlink()
    with pytest.raises(InputError, match=r"coco/a\.png\.json is gone: run the command again"):
        collect(find_images([folder]), out)
    with pytest.raises(InputError):
        find_images([folder / "nowhere"])
