import json

import pytest

from bccd_d2.engine.setup import reduced_data, setup_config
from tests.engine.tiny import LITE, TINY, tiny_config, write_data
from tools.train_net import argument_parser, main


def test_two_images_of_each_part_are_left_those_with_cells_first(tiny_root, tmp_path):
    source = tiny_root / "annotations" / "instances_train.json"
    content = json.loads(source.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 0]
    root = tmp_path / "root"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    reduced_data(root, tmp_path / "out", ["bccd_train"])
    reduced = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [image["id"] for image in reduced["images"]] == [1, 2]
    assert {a["image_id"] for a in reduced["annotations"]} == {1, 2}
    assert len(reduced["annotations"]) == 6
    assert reduced["info"]["image_root"] == str(root.resolve())


def test_the_configuration_is_of_two_iterations_in_a_folder_of_its_own(tiny_root, tmp_path):

    (tmp_path / "fast_dev_run").mkdir()
    for name in ("old", ".lock", "inference/a"):
        (tmp_path / "fast_dev_run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "fast_dev_run" / name).touch()
    (tmp_path / "kept").touch()
    options = [*TINY, "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "9"]
    cfg = setup_config(LITE, options, str(tiny_root), fast=True)
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (2, 1)
    assert str(tmp_path / "fast_dev_run") == cfg.OUTPUT_DIR
    # The lock is this run's own.
    assert sorted(path.name for path in (tmp_path / "fast_dev_run").iterdir()) == [".lock", "data"]
    assert (tmp_path / "kept").exists()
    tiny_config(tiny_root, tmp_path)  # registers the whole data again


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_a_run_that_nothing_evaluates_ends_well(tmp_path, key):
    root = write_data(tmp_path / "data")
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": [], key: []}))
    options = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.WEIGHTS", ""]
    given = ["--config-file", str(LITE), "--data-root", str(root), "--fast-dev-run", *options]
    main(argument_parser().parse_args(given))
    assert (tmp_path / "out/fast_dev_run/model_final.pth").is_file()
