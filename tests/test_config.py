from pathlib import Path

import pytest
import yaml

from bccd_d2.config import get_bccd_cfg, load_config
from bccd_d2.config_checks import check_config
from bccd_d2.data.pipeline import build_pipeline
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
        (["SOLVER.ACCUMULATE", "0"], "SOLVER.ACCUMULATE: expected a number from 1 on, found 0"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "Step"],
            "expected one of WarmupMultiStepLR, WarmupCosineLR, found 'Step'",
        ),
        (["SOLVER.AMP.DTYPE", "half"], "expected one of auto, float16, bfloat16, found 'half'"),
        (["MODEL_EMA.DECAY", "1.0"], r"MODEL_EMA.DECAY: expected a share in \(0, 1\), found 1.0"),
        (["TEST.PATIENCE", "2", "TEST.EVAL_PERIOD", "0"], "TEST.PATIENCE is 2, but TEST.EVAL_PERIOD is 0"),
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
    check_config(cfg, get_bccd_cfg())


def test_model_files_are_short_and_say_what_they_are():
    for path in MODELS:
        text = path.read_text()
        assert text.startswith("#"), path.name
        assert yaml.safe_load(text)["_BASE_"] == "Base-BCCD-MaskRCNN-FPN.yaml"


LITE = CONFIGS / "mask_rcnn_R_18_FPN_lite.yaml"
COCO = ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
UNIT = ([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])
COCO_WEIGHTS = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
X101_WEIGHTS = (
    "detectron2://COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x/139653917/model_final_2d9806.pkl"
)
IMAGENET_RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("mask_rcnn_R_18_FPN_lite", [], UNIT),
        ("mask_rcnn_X_101_32x8d_FPN", [], (COCO[0], [57.375, 57.12, 58.395])),
        ("mask_rcnn_UNI_ViT_L_SFP", [], IMAGENET_RGB),
        ("mask_rcnn_ConvNeXt_T_FPN", [], IMAGENET_RGB),
        # Its weights were trained on levels of -1 to 1.
        ("mask_rcnn_ConvNeXt_T_FPN", ["MODEL.TIMM.NAME", "test_convnext"], ([127.5] * 3, [127.5] * 3)),
        ("mask_rcnn_R_50_FPN_scratch", [], UNIT),
        ("mask_rcnn_R_50_FPN", [], COCO),
        ("mask_rcnn_R_18_FPN_lite", ["INPUT.PIXELS", "coco", "MODEL.WEIGHTS", COCO_WEIGHTS], COCO),
        ("mask_rcnn_R_18_FPN_lite", ["INPUT.PIXELS", "custom", "MODEL.PIXEL_MEAN", "[1.0,2.0,3.0]"], None),
    ],
)
def test_one_switch_sets_what_the_network_sees(name, options, expected):
    model = load_config(CONFIGS / f"{name}.yaml", options).MODEL
    expected = expected or ([1.0, 2.0, 3.0], COCO[1])
    assert (list(model.PIXEL_MEAN), list(model.PIXEL_STD)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["INPUT.PIXELS", "grey"],
            "INPUT.PIXELS: expected one of coco, coco_std, unit, imagenet, timm, custom, found 'grey'",
        ),
        (["MODEL.PIXEL_MEAN", "[1.0,2.0,3.0]"], "INPUT.PIXELS is 'unit', which sets them"),
        (["MODEL.WEIGHTS", COCO_WEIGHTS], "expects INPUT.PIXELS 'coco' and INPUT.FORMAT 'BGR', found 'unit'"),
        (
            ["MODEL.WEIGHTS", COCO_WEIGHTS, "INPUT.PIXELS", "coco", "INPUT.FORMAT", "RGB"],
            "found 'coco' and 'RGB'",
        ),
        (
            ["MODEL.WEIGHTS", X101_WEIGHTS, "INPUT.PIXELS", "coco"],
            "expects INPUT.PIXELS 'coco_std' and INPUT.FORMAT 'BGR', found 'coco' and 'BGR'",
        ),
        (
            [
                "MODEL.WEIGHTS",
                "detectron2://Misc/scratch_mask_rcnn_R_50_FPN_3x_gn/138602908/model_final_01ca85.pkl",
            ],
            "expects INPUT.PIXELS 'coco_std'",
        ),
        (["INPUT.PIXELS", "imagenet"], "INPUT.PIXELS 'imagenet' expects INPUT.FORMAT 'RGB', found 'BGR'"),
        (
            ["INPUT.PIXELS", "timm", "INPUT.FORMAT", "RGB"],
            "INPUT.PIXELS 'timm' expects MODEL.BACKBONE.NAME 'build_timm_fpn_backbone'",
        ),
    ],
)
def test_the_switch_is_checked_against_values_and_weights(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TEST.AUG.ENABLED", "True"], "TEST.AUG.ENABLED has no effect here: use TEST.TTA.ENABLED"),
        (["TEST.TTA.SCALES", "[1.0, 0.0]"], r"TEST.TTA.SCALES: expected .* found \[1.0, 0.0\]"),
        (["TEST.TTA.SCALES", "[]"], r"TEST.TTA.SCALES: expected .* found \[\]"),
        (["MODEL.CPU_MODE", "fast"], "MODEL.CPU_MODE: expected one of auto, plain, .* found 'fast'"),
        (
            ["INPUT.CELL_DIAMETER", "-1.0"],
            r"INPUT.CELL_DIAMETER: expected 0 \(not known\) or more, found -1.0",
        ),
        (["INPUT.MICRONS_PER_PIXEL", "-1.0"], "INPUT.MICRONS_PER_PIXEL: expected 0"),
    ],
)
def test_what_prediction_cannot_do_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options)


def test_an_augmentation_pipeline_survives_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"_BASE_: {LITE}\nINPUT:\n  AUGMENTATION:\n    PIPELINE:\n"
        "      - [Affine, {rotate: [-20, 20], fill: glass, p: 0.5}]\n"
        "      - [OneOf, {transforms: [[Blur, {}], [GaussNoise, {std_range: [0.1, 0.2]}]], p: 1.0}]\n"
    )
    cfg = load_config(path)
    again = tmp_path / "dump.yaml"
    again.write_text(cfg.dump())
    for one in (cfg, load_config(again)):
        augmentation = build_pipeline(one.INPUT.AUGMENTATION.PIPELINE)
        assert [type(t).__name__ for t in augmentation.pipeline.transforms] == ["Affine", "OneOf"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["MODEL.TIMM.NAME", "resnet18"],
            "MODEL.TIMM has no effect with MODEL.BACKBONE.NAME 'build_resnet_fpn",
        ),
        (["MODEL.TIMM.LR_DECAY", "0.5"], "MODEL.TIMM has no effect .* build_timm_sfp_backbone"),
        (
            ["MODEL.BACKBONE.NAME", "build_timm_sfp_backbone", "MODEL.BACKBONE.FREEZE_AT", "2"],
            "MODEL.BACKBONE.FREEZE_AT has no effect with .* expected 0, found 2",
        ),
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8],[16]]"],
            "SIZES: expected one list of numbers, or one a level",
        ),
        (["MODEL.ANCHOR_GENERATOR.SIZES", "[8,16,32,64,128]"], "SIZES: expected one list of numbers"),
        (
            ["MODEL.ANCHOR_GENERATOR.SIZES", "[[8],[16],[32],[64],[128,256]]"],
            r"as many anchors on every level, which share one head, found \[3, 3, 3, 3, 6\]",
        ),
    ],
)
def test_keys_of_the_backbone_and_the_anchors_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options)


@pytest.mark.parametrize(
    ("dtype", "supported", "expected"),
    [("bfloat16", True, True), ("bfloat16", False, False), ("auto", True, False), ("float16", True, False)],
)
def test_lower_precision_is_used_on_a_cpu_that_has_it_and_when_asked_for(
    monkeypatch, dtype, supported, expected
):
    monkeypatch.setattr("bccd_d2.config.cpu_supports_bfloat16", lambda: supported)
    cfg = load_config(LITE, ["MODEL.DEVICE", "cpu", "SOLVER.AMP.DTYPE", dtype])
    assert expected == cfg.SOLVER.AMP.ENABLED
