"""A batch from its inputs to its results, and results of two models that are never mixed."""

import errno
import json
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
import pytest
from torch.multiprocessing import ProcessRaisedException

from bccd_d2.errors import InputError
from bccd_d2.inference import batch, predict_file
from bccd_d2.inference import collect as collecting
from bccd_d2.inference.batch import Job, OutputError, prepare_job, run_job
from bccd_d2.inference.collect import collect
from bccd_d2.inference.exporting import engines
from bccd_d2.inference.model_files import ModelFiles, find_model, shipped_model
from bccd_d2.inference.options import PredictionOptions
from tests.conftest import REPOSITORY
from tests.inference.drawn_cells import DarkThings

LITE = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"


class Loaded(DarkThings):
    """A stand-in that is made as the predictor is."""

    devices: ClassVar[list[str | None]] = []

    def __init__(self, config, weights, options, *, device=None, max_detections=None, cpu_mode=None):
        super().__init__(options=options)
        self.devices.append(device)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    Loaded.devices = []
    monkeypatch.setattr(engines, "BCCDPredictor", Loaded)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(5):
        image = np.full((40, 50, 3), 200, np.uint8)
        image[5:30, 5 : 10 + 4 * index] = 30
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), image)
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return tmp_path


def prepare(folder, output="out", *, weights="weights.pth", formats=("coco", "csv", "overlay"), **given):
    overwrite = given.pop("overwrite", False)
    options = PredictionOptions(**{"score_threshold": 0.5} | given)
    model = ModelFiles(str(LITE), str(folder / weights))
    return prepare_job([folder / "in"], folder / output, model, options, formats, overwrite=overwrite)


def finish(prepared: Job, num_gpus=1):
    run_job(prepared, num_gpus)
    return collect(prepared.images, prepared.outputs)


def tree(folder):
    """Content by name, of records only the name: they say how long it took."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if "records" not in path.parts else None
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_several_gpus_write_the_files_of_one(folder, monkeypatch):
    finish(prepare(folder))

    def launch(main, num_gpus, dist_url, args):
        assert dist_url == "auto"
        for rank in range(num_gpus):
            monkeypatch.setattr(batch.comm, "get_rank", lambda rank=rank: rank)
            monkeypatch.setattr(batch.comm, "get_world_size", lambda: num_gpus)
            main(*args)

    monkeypatch.setattr(batch, "launch", launch)
    Loaded.devices = []
    finish(prepare(folder, "shared"), 2)
    assert Loaded.devices == ["cuda:0", "cuda:1"]
    assert tree(folder / "shared") == tree(folder / "out")


def test_a_process_that_ends_with_bad_input_ends_the_batch_with_its_message(folder, monkeypatch):
    def launch(*arguments, **options):
        raise ProcessRaisedException("-- Process 1 --\nTraceback:\n\n" + last, 1, 99)

    monkeypatch.setattr(batch, "launch", launch)
    last = "bccd_d2.inference.predict_file.OutputError: out: results cannot be written (disk full)\n"
    with pytest.raises(InputError, match=r"^out: results cannot be written"):
        run_job(prepare(folder), 2)
    last = "ZeroDivisionError: division by zero\n"
    with pytest.raises(ProcessRaisedException):
        run_job(prepare(folder), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_threshold": 0.3}, r"options\.score_threshold was 0\.5, is now 0\.3\. Give another --output"),
        ({"weights": "other.pth"}, "weights was '[0-9a-f]+', is now '[0-9a-f]+'"),
    ],
)
def test_results_of_another_model_or_options_are_not_mixed(folder, change, message):
    (folder / "other.pth").write_bytes(b"other weights")
    finish(prepare(folder))
    before = tree(folder / "out")
    with pytest.raises(InputError, match=message):
        prepare(folder, **change)
    assert tree(folder / "out") == before
    # Forced, what is left of the old results goes.
    (folder / "in" / "0.png").unlink()
    finish(prepare(folder, **change, overwrite=True))
    assert set(before) - set(tree(folder / "out")) == {
        *("coco/0.png.json", "csv/0.png.csv", "overlays/0.png.png", "records/0.png.json")
    }


def test_overwrite_does_everything_again(folder):
    finish(prepare(folder))
    (folder / "out" / "notes.txt").write_text("mine")
    assert len(prepare(folder).pending) == 0
    assert len(prepare(folder, overwrite=True).pending) == 5
    assert (folder / "out" / "coco" / "1.png.json").is_file()
    assert (folder / "out" / "notes.txt").is_file()


def test_files_of_an_unknown_model_are_not_replaced(folder):
    (folder / "out").mkdir()
    (folder / "out" / "predictions.json").write_text("[]")
    with pytest.raises(InputError, match=r"predictions\.json exists; give --overwrite"):
        prepare(folder)
    finish(prepare(folder, overwrite=True))
    assert len(json.loads((folder / "out" / "predictions.json").read_text())) == 5


def test_a_run_without_results_blocks_no_other(folder):
    prepare(folder)
    assert len(prepare(folder, score_threshold=0.3).pending) == 5


def test_a_broken_manifest_is_named(folder):
    finish(prepare(folder))
    (folder / "out" / "run.json").write_text("{")
    (folder / "out" / "records" / "0.png.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: not JSON .*--overwrite"):
        prepare(folder)
    assert len(prepare(folder, overwrite=True).pending) == 5


@pytest.mark.parametrize("name", ["x" * 240, "é" * 110, "x" * 207])
def test_names_that_leave_no_room_for_those_of_the_results_are_refused_before_the_work(folder, name):
    (folder / "in" / "0.png").rename(folder / "in" / f"{name}.png")
    with pytest.raises(InputError, match=f"1 file names of more than 210 bytes.*{name}"):
        prepare(folder)
    assert not (folder / "out").exists()


def test_results_below_the_inputs_are_no_images(folder):
    finish(prepare(folder, "in/results"))
    assert len(prepare(folder, "in/results").images) == 5


def names(job):
    return [name for _, name in job.images]


def test_an_image_in_the_output_folder_is_predicted_and_kept(folder):
    """--input smear.png --output ."""
    before = (folder / "in" / "0.png").read_bytes()
    finish(prepare(folder, "in"))
    again = prepare(folder, "in")
    assert names(again) == [f"{index}.png" for index in range(5)]
    assert again.pending == []
    assert (folder / "in" / "0.png").read_bytes() == before
    # Results of one run are no input of another that writes elsewhere.
    assert names(prepare(folder, "elsewhere")) == names(again)
    with pytest.raises(InputError, match=r"0\.png\.png and all others are results of an earlier prediction"):
        prepare_job([folder / "in" / "overlays"], folder / "x", again.model, again.options, ("csv",))


def test_images_in_a_folder_named_as_ours_are_images(folder):
    """The user's own labels/ and overlays/, in and below the output folder."""
    for place in ("labels", "overlays"):
        (folder / "in" / place).mkdir()
        cv2.imwrite(str(folder / "in" / place / "mine.png"), np.full((40, 50, 3), 200, np.uint8))
    before = {path: path.read_bytes() for path in (folder / "in").rglob("mine.png")}
    job = prepare(folder, "in", formats=("labels", "overlay"))
    assert {"labels/mine.png", "overlays/mine.png"} < set(names(job))
    finish(job)
    assert len(prepare(folder, "in", formats=("labels", "overlay")).images) == 7
    finish(prepare(folder, "in", formats=("labels", "overlay"), score_threshold=0.1, overwrite=True))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("own", "file"),
    [("labels/smear.png", "smear"), ("labels/smear.tif", "smear"), ("overlays/smear.png", "smear")],
)
def test_an_input_is_never_written_over(folder, own, file):
    """An image without a suffix whose result would have the name of another image."""
    content = (folder / "in" / "0.png").read_bytes()
    for name in (own, file):
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).write_bytes(content)
    inputs = [folder / "in" / own, folder / "in" / file]
    model, formats = ModelFiles(str(LITE), str(folder / "weights.pth")), ("labels", "overlay")
    with pytest.raises(
        InputError, match=rf"{own} is an input and would be written over; give another --output"
    ):
        prepare_job(inputs, folder / "in", model, PredictionOptions(), formats)
    assert not (folder / "in" / "run.json").exists()
    assert (folder / "in" / own).read_bytes() == content


def test_overwriting_deletes_no_input_that_a_record_lists(folder):
    job = prepare(folder, "in")
    finish(job)
    record = job.outputs.record("0.png")
    job.outputs.write_record("0.png", record | {"results": [*record["results"], "2.png"]})
    (folder / "in" / "run.json").unlink()
    inputs = sorted((folder / "in").glob("?.png"))
    prepare_job(inputs[2:], folder / "in", job.model, PredictionOptions(0.7), ("csv",), overwrite=True)
    assert (folder / "in" / "2.png").exists()


def test_images_of_one_folder_and_size_share_an_estimate(folder, caplog):
    """The stand-in estimates the width of an image, which is 50; one image is 70 pixels wide."""
    cv2.imwrite(str(folder / "in" / "wide.png"), np.full((40, 70, 3), 200, np.uint8))
    finish(prepare(folder, diameter="auto", formats=("csv",)))
    groups = json.loads((folder / "out" / "run.json").read_text())["diameters"]
    place = (folder / "in").as_posix()
    assert groups[f"{place} 50x40"] == {"diameter": 50.0, "cells": 50, "doubt": ""}
    assert groups[f"{place} 70x40"]["diameter"] == 70.0
    counts = pd.read_csv(folder / "out" / "counts.csv").set_index(["image", "class"])
    assert (
        counts.loc[("3.png", "RBC"), "diameter_px"] == 50
        and counts.loc[("wide.png", "all"), "diameter_px"] == 70
    )
    assert counts.loc[("3.png", "RBC"), "diameter_from"] == "estimated"
    # A resumed run keeps the estimates it has, and a finished one makes none.
    groups[f"{place} 50x40"]["diameter"] = 44.0
    manifest = json.loads((folder / "out" / "run.json").read_text()) | {"diameters": groups}
    (folder / "out" / "run.json").write_text(json.dumps(manifest))
    (folder / "out" / "records" / "0.png.json").unlink()
    finish(prepare(folder, diameter="auto", formats=("csv",)))
    counts = pd.read_csv(folder / "out" / "counts.csv").set_index(["image", "class"])
    assert counts.loc[("0.png", "RBC"), "diameter_px"] == 44
    # What cannot be read is estimated again.
    for broken in ({f"{place} 50x40": {"diameter": "wide"}}, ["a list"], {f"{place} 50x40": 3}):
        (folder / "out" / "run.json").write_text(json.dumps(manifest | {"diameters": broken}))
        (folder / "out" / "records" / "0.png.json").unlink()
        finish(prepare(folder, diameter="auto", formats=("csv",)))
        counts = pd.read_csv(folder / "out" / "counts.csv").set_index(["image", "class"])
        assert counts.loc[("0.png", "RBC"), "diameter_px"] == 50


def test_which_model_is_taken(tmp_path):
    for name in ("config.yaml", "model_final.pth", "smear.yaml", "smear.safetensors"):
        (tmp_path / name).touch()
    run = ModelFiles(str(tmp_path / "config.yaml"), str(tmp_path / "model_final.pth"))
    assert find_model(tmp_path) == run
    assert find_model(tmp_path, weights="detectron2://x.pkl").weights == "detectron2://x.pkl"
    assert find_model(None, run.config, run.weights) == run
    assert shipped_model(folder=tmp_path) == ModelFiles(
        str(tmp_path / "smear.yaml"), str(tmp_path / "smear.safetensors")
    )
    assert find_model(name="smear") == find_model() == shipped_model("smear")


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="give both --config-file and --weights"):
        find_model(config_file=tmp_path / "config.yaml")
    with pytest.raises(InputError, match="nowhere is not there; expected the OUTPUT_DIR"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"config\.yaml is not there"):
        find_model(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match=r"model_final\.pth is not there"):
        find_model(tmp_path)
    with pytest.raises(InputError, match=r"no model 'smear' in .* \(there: none\): give --run"):
        shipped_model(folder=tmp_path)
    with pytest.raises(InputError, match=r"no model 'large' in .* \(there: smear\)"):
        find_model(name="large")
    with pytest.raises(InputError, match="--model smear: not together with --run"):
        find_model(tmp_path, name="smear")


def full_disk(*given):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_the_same_command_resumes(folder, monkeypatch):
    whole = finish(prepare(folder, "whole"))
    told = r"/out: results cannot be written .*the same command resumes"
    with monkeypatch.context() as disk, pytest.raises(OutputError, match=told):
        disk.setattr(predict_file, "write_formats", full_disk)
        run_job(prepare(folder))
    assert not (folder / "out" / ".partial").exists()
    job = prepare(folder)
    assert len(job.pending) == 5
    run_job(job)
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space left") as raised:
        disk.setattr(collecting, "write_csv", full_disk)
        collect(job.images, job.outputs)
    assert raised.value.filename == str(folder / "out")
    assert not (folder / "out" / "counts.csv").exists()
    assert collect(job.images, job.outputs).counts == whole.counts
