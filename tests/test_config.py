from pathlib import Path

import pytest
import yaml

from bccd_d2.config import check_config, get_bccd_cfg, load_config
from bccd_d2.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
MODELS = sorted(path for path in CONFIGS.glob("*.yaml") if not path.name.startswith("Base-"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_file_is_valid(path):
    cfg = load_config(path)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 500
    assert cfg.SEED == 42
    assert len(cfg.MODEL.ANCHOR_GENERATOR.SIZES) == len(cfg.MODEL.RPN.IN_FEATURES)


def test_options_win_over_the_file():
    cfg = load_config(MODELS[0], ["SOLVER.BASE_LR", "0.5", "INPUT.SCALE", "0.25"])
    assert (cfg.SOLVER.BASE_LR, cfg.INPUT.SCALE) == (0.5, 0.25)


def test_a_run_reads_its_own_dump(tmp_path):
    cfg = load_config(MODELS[0])
    cfg.DATASETS.CLASS_NAMES = ["RBC", "WBC"]
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    # As plain values: YAML knows no tuples.
    assert yaml.safe_load(load_config(path).dump()) == yaml.safe_load(cfg.dump())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["INPUT.SCAEL", "1"], "Non-existent key: INPUT.SCAEL"),
        (["INPUT.SCALE"], "expected pairs of KEY VALUE, found 1 words: INPUT.SCALE"),
        (["INPUT.SCALE", "half"], "Type mismatch"),
        (["INPUT.SCALE", "0."], "INPUT.SCALE: expected a number above 0, found 0"),
        (["INPUT.MIN_SIZE_TEST", "600"], "INPUT.MIN_SIZE_TEST has no effect here"),
        (["INPUT.MASK_FORMAT", "polygon"], "INPUT.MASK_FORMAT: expected 'bitmask', found 'polygon'"),
        (["INPUT.CROP.TYPE", "relative"], "INPUT.CROP.TYPE: expected 'absolute', found 'relative'"),
        (["TEST.DETECTIONS_PER_IMAGE", "100000"], "below TEST.DETECTIONS_PER_IMAGE"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        load_config(MODELS[0], options)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("INPUT:\n  SCAEL: 1\n", "Non-existent config key: INPUT.SCAEL"),
        ("INPUT: [\n", "while parsing"),
        ("INPUT: 3\n", "INPUT"),
        ("just words\n", r"run\.yaml"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_the_defaults_alone_pass_but_for_what_the_base_file_sets():
    cfg = get_bccd_cfg()
    cfg.INPUT.MASK_FORMAT = "bitmask"
    check_config(cfg)


def test_model_files_are_short_and_say_what_they_are():
    for path in MODELS:
        text = path.read_text()
        assert text.startswith("#"), path.name
        assert yaml.safe_load(text)["_BASE_"] == "Base-BCCD-MaskRCNN-FPN.yaml"
