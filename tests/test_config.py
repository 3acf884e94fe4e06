from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg

from bccd_d2.config import get_bccd_cfg, load_config
from bccd_d2.config.checks import check_config, class_weights, score_thresholds
from bccd_d2.errors import InputError
from tools.config_reference import keys, reference_page

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
MODELS = sorted(path for path in CONFIGS.glob("*.yaml") if not path.name.startswith("Base-"))
LITE = CONFIGS / "mask_rcnn_R_18_FPN_lite.yaml"
SLIM = CONFIGS / "mask_rcnn_slim_FPN_lite.yaml"
TIMM = "MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.TIMM.NAME test_convnext "
STOCK = "MODEL.META_ARCHITECTURE GeneralizedRCNN MODEL.PROPOSAL_GENERATOR.NAME RPN "


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_file_is_valid_short_and_described(path):
    cfg = load_config(path)
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 500
    assert cfg.SEED == 42
    assert len(cfg.MODEL.ANCHOR_GENERATOR.SIZES) == len(cfg.MODEL.RPN.IN_FEATURES)
    assert path.read_text().startswith("#")
    assert len(path.read_text().splitlines()) <= 45


@pytest.mark.parametrize("path", [LITE, ROOT / "weights" / "smear.yaml"], ids=lambda p: p.stem)
def test_a_run_reads_its_own_dump(tmp_path, path):
    cfg = load_config(path)
    # As plain values: YAML has no tuples.
    again = load_config(write(tmp_path / "config.yaml", cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_the_defaults_alone_pass_but_for_what_the_base_file_sets():
    cfg = get_bccd_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.CROP.TYPE = "bitmask", "absolute"
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    check_config(cfg, get_bccd_cfg())


def leaves(node: CfgNode, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {prefix + key: value}
    return found


def test_the_reference_has_every_key_with_its_default():
    ours, stock = leaves(get_bccd_cfg()), leaves(get_cfg())
    changed = {key for key, value in ours.items() if key not in stock or stock[key] != value}
    listed = {name: default for name, default, _ in keys() if default}
    assert changed <= set(listed) <= set(ours)
    assert {name: eval(default) for name, default in listed.items()} == {name: ours[name] for name in listed}
    assert all(comment for name, default, comment in keys() if default and not name.endswith(".ENABLED"))
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run: python tools/config_reference.py"


# What is wrong with a value, or with two of them.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("INPUT.SCAEL 1", "Non-existent key: INPUT.SCAEL"),
        ("INPUT.SCALE", "expected pairs of KEY VALUE, found 1 words: INPUT.SCALE"),
        ("INPUT.SCALE half", "Type mismatch"),
        ("INPUT.SCALE 0.", "INPUT.SCALE: expected a number from 0.01 on, found 0"),
        ("INPUT.CROP.TYPE relative", "INPUT.CROP.TYPE: expected 'absolute', found 'relative'"),
        ("INPUT.CROP.SIZE [0,5]", r"INPUT.CROP.SIZE: expected \[height, width\] in native pixels"),
        ("INPUT.AUGMENTATION.PRESET wild", "expected one of none, mild, strong, found 'wild'"),
        ("INPUT.AUGMENTATION.ZOOM [2.0,1.0]", r"ZOOM: expected \[smallest, largest\], found \[2.0, 1.0\]"),
        ("INPUT.AUGMENTATION.ZOOM [1.0]", r"ZOOM: expected 2 numbers, found \[1.0\]"),
        ("INPUT.STAIN.TARGET_MEAN [1.0,2.0]", "INPUT.STAIN.TARGET_MEAN: expected 3 numbers"),
        ("INPUT.STAIN.JITTER_MEAN [0.0,0.0,16.0]", "JITTER_MEAN: expected a number from 0 to 15"),
        ("TEST.DETECTIONS_PER_IMAGE 100000", "below TEST.DETECTIONS_PER_IMAGE"),
        ("TEST.PATIENCE 2 TEST.EVAL_PERIOD 0", "TEST.PATIENCE is 2, but TEST.EVAL_PERIOD is 0"),
        ("TEST.TTA.SCALES []", r"TEST.TTA.SCALES: expected .* found \[\]"),
        ("SOLVER.OPTIMIZER Adamax", "expected one of AdamW, SGD, found 'Adamax'"),
        ("MODEL_EMA.ENABLED True MODEL_EMA.DECAY 1.0", "MODEL_EMA.DECAY: expected a number from 0 to 0.99"),
        ("MODEL.ANCHOR_GENERATOR.SIZES [[8],[16]]", "SIZES: expected one list of numbers, or one per level"),
        (
            "MODEL.ANCHOR_GENERATOR.SIZES [[8],[16],[32],[64],[128,256]]",
            r"equally many anchors on every level, found \[3, 3, 3, 3, 6\]",
        ),
        # Others would train regions to ignore as cells.
        ("MODEL.PROPOSAL_GENERATOR.NAME RPN", "MODEL.PROPOSAL_GENERATOR.NAME: expected CellRPN"),
        ("MODEL.TIMM.OPTIONS [3]", r"OPTIONS: expected \[name, value\] pairs, found \[3\]"),
        ("MODEL.DEVICE cuda:99", "MODEL.DEVICE: found 'cuda:99', but PyTorch finds"),
        ("MODEL.DEVICE cuda:x", "MODEL.DEVICE: expected cpu, cuda or cuda:N, found 'cuda:x'"),
        ("MODEL.DEVICE cpuu", "MODEL.DEVICE: expected cpu, cuda or cuda:N, found 'cpuu'"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("INPUT:\n  SCAEL: 1\n", "Non-existent config key: INPUT.SCAEL"),
        ("INPUT: [\n", "while parsing"),
        ("INPUT: 3\n", "INPUT"),
        ("just words\n", "expected keys and values"),
        ("MODEL: {WEIGHTS: !!python/object/apply:os.getcwd []}", "not YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = write(tmp_path / "run.yaml", text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"absent\.yaml: .* there is no such file"):
        load_config(tmp_path / "absent.yaml")


# Keys without effect.

NO_EFFECT = [
    (TIMM + "MODEL.TIMM.LR_DECAY 0.5", "MODEL.TIMM.LR_DECAY .* expected build_timm_sfp_backbone"),
    ("INPUT.MIN_SIZE_TEST 600", "INPUT.MIN_SIZE_TEST has no effect: INPUT.SCALE"),
    ("MODEL.TIMM.NAME resnet18", "MODEL.TIMM.NAME is 'resnet18', but has no effect with MODEL.BACKBONE.NAME"),
    (TIMM + "MODEL.BACKBONE.FREEZE_AT 2", "MODEL.BACKBONE.FREEZE_AT has no effect with"),
    ("MODEL.ROI_HEADS.MASK_NMS.THRESH 0.3", "with MODEL.ROI_HEADS.MASK_NMS.ENABLED False: expected True"),
    (
        STOCK + "MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS [2.0,1.0]",
        "expected CellROIHeads or CellCascadeROIHeads",
    ),
    (
        "MODEL.ROI_HEADS.NAME CellCascadeROIHeads MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC True",
        "NMS_CLASS_AGNOSTIC is True, but has no effect with .* expected CellROIHeads",
    ),
]


def put(tree, key, value):
    """Set a dotted key in nested dicts."""
    *groups, name = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[name] = value


@pytest.mark.parametrize(("options", "message"), NO_EFFECT)
def test_a_key_that_the_user_wrote_and_nothing_reads_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options.split())
    tree: dict[str, object] = {"_BASE_": str(LITE)}
    for key, value in zip(options.split()[::2], options.split()[1::2]):
        put(tree, key, yaml.safe_load(value))
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path / "mine.yaml", yaml.safe_dump(tree)))


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("mask_rcnn_slim_FPN_lite", "BACKBONE: {NAME: build_timm_fpn_backbone}, TIMM: {NAME: test_convnext}"),
        ("mask_rcnn_R_50_FPN", "WEIGHTS: '', BACKBONE: {NAME: build_slim_resnet_fpn_backbone}"),
        ("mask_rcnn_ConvNeXt_T_FPN", "BACKBONE: {NAME: build_resnet_fpn_backbone}"),
    ],
)
def test_a_file_may_be_based_on_another_and_change_its_backbone(tmp_path, base, changes):
    text = f"_BASE_: {CONFIGS / base}.yaml\nMODEL: {{{changes}}}\nINPUT: {{PIXELS: unit}}\n"
    cfg = load_config(write(tmp_path / "mine.yaml", text))
    again = load_config(write(tmp_path / "config.yaml", cfg.dump()))
    assert (
        again.MODEL.BACKBONE.NAME
        == cfg.MODEL.BACKBONE.NAME
        != load_config(CONFIGS / f"{base}.yaml").MODEL.BACKBONE.NAME
    )


# Values by class.

THREE = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.CLASS_NAMES", "['RBC', 'WBC', 'Platelets']"]
WEIGHTS, THRESHOLDS = "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS"


@pytest.mark.parametrize(
    ("weights", "thresholds", "expected"),
    [
        ("[]", "[]", (None, None)),
        ("[1, 2.0, 3, 0.5]", "[0.4, 0.5, 0.6]", ([1, 2, 3, 0.5], [0.4, 0.5, 0.6])),
        (
            "[['Platelets', 4], ['background', 0.5]]",
            "[['WBC', 0.7]]",
            ([1, 1, 4, 0.5], [0.05, 0.7, 0.05]),
        ),
    ],
)
def test_values_are_given_by_order_or_by_name(weights, thresholds, expected):
    cfg = load_config(LITE, [*THREE, WEIGHTS, weights, THRESHOLDS, thresholds])
    assert (class_weights(cfg), score_thresholds(cfg)) == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (WEIGHTS, "[1.0, 2.0, 3.0]", r"expected 4 numbers \(one per class and background\), found"),
        (WEIGHTS, "[0.0, 0.0, 0.0, 0.0]", "not all 0"),
        (WEIGHTS, "[1.0, 1.0, 1.0, -1.0]", "expected numbers from 0 on"),
        (WEIGHTS, "['WBC', 2.0]", r"or \[name, number\] pairs, found"),
        (WEIGHTS, "[['cell', 2.0]]", "expected each of RBC, WBC, Platelets, background at most once"),
        (THRESHOLDS, "[['WBC', 0.2], ['WBC', 0.3]]", "expected each of RBC, WBC, Platelets at most once"),
        (THRESHOLDS, "[0.5]", r"expected 3 numbers \(one per class\)"),
        (THRESHOLDS, "[0.5, 0.01, 0.5]", r"from MODEL.ROI_HEADS.SCORE_THRESH_TEST \(0.05\) to below 1"),
    ],
)
def test_values_that_do_not_fit_the_classes_are_refused(key, value, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, [*THREE, key, value])


# What the network sees.

COCO = ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
UNIT = ([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])
ZOO = "detectron2://COCO-InstanceSegmentation/mask_rcnn_"
R50_WEIGHTS = f"{ZOO}R_50_FPN_3x/137849600/model_final_f10217.pkl"
X101_WEIGHTS = f"{ZOO}X_101_32x8d_FPN_3x/139653917/model_final_2d9806.pkl"
SCRATCH_WEIGHTS = "detectron2://Misc/scratch_mask_rcnn_R_50_FPN_3x_gn/138602908/model_final_01ca85.pkl"
IMAGENET_RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("mask_rcnn_R_18_FPN_lite", "", UNIT),
        ("mask_rcnn_X_101_32x8d_FPN", "", (COCO[0], [57.375, 57.12, 58.395])),
        ("mask_rcnn_ConvNeXt_T_FPN", "", IMAGENET_RGB),
        # Its weights were trained on levels of -1 to 1.
        ("mask_rcnn_ConvNeXt_T_FPN", "MODEL.TIMM.NAME test_convnext", ([127.5] * 3, [127.5] * 3)),
        ("mask_rcnn_R_18_FPN_lite", f"INPUT.PIXELS coco MODEL.WEIGHTS {R50_WEIGHTS}", COCO),
        (
            "mask_rcnn_R_18_FPN_lite",
            "INPUT.PIXELS custom MODEL.PIXEL_MEAN [1.0,2.0,3.0]",
            ([1, 2, 3], COCO[1]),
        ),
    ],
)
def test_one_switch_sets_what_the_network_sees(name, options, expected):
    model = load_config(CONFIGS / f"{name}.yaml", options.split()).MODEL
    assert (list(model.PIXEL_MEAN), list(model.PIXEL_STD)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("INPUT.PIXELS grey", "expected one of coco, coco_std, unit, imagenet, timm, custom, found 'grey'"),
        ("MODEL.PIXEL_MEAN [1.0,2.0,3.0]", "INPUT.PIXELS is 'unit', which sets them"),
        (f"MODEL.WEIGHTS {R50_WEIGHTS} INPUT.PIXELS coco INPUT.FORMAT RGB", "found 'coco' and 'RGB'"),
        (f"MODEL.WEIGHTS {X101_WEIGHTS} INPUT.PIXELS coco", "expects INPUT.PIXELS 'coco_std' and"),
        (f"MODEL.WEIGHTS {SCRATCH_WEIGHTS}", "expects INPUT.PIXELS 'coco_std'"),
        ("INPUT.PIXELS imagenet", "INPUT.PIXELS 'imagenet' expects INPUT.FORMAT 'RGB', found 'BGR'"),
        ("INPUT.PIXELS timm INPUT.FORMAT RGB", "INPUT.PIXELS 'timm' expects MODEL.BACKBONE.NAME"),
    ],
)
def test_the_switch_is_checked_against_values_and_weights(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options.split())


# What the machine has.


@pytest.mark.parametrize(
    ("dtype", "supported", "expected"),
    [("bfloat16", True, True), ("bfloat16", False, False), ("auto", True, False)],
)
def test_mixed_precision_is_used_on_a_cpu_that_has_it_and_turned_off_with_a_warning(
    monkeypatch, caplog, dtype, supported, expected
):
    from bccd_d2.config import _warn_once

    _warn_once.cache_clear()
    monkeypatch.setattr("bccd_d2.config.cpu_supports_bfloat16", lambda: supported)
    options = ["MODEL.DEVICE", "cpu", "SOLVER.AMP.DTYPE", dtype]
    assert expected == load_config(LITE, options).SOLVER.AMP.ENABLED
    assert not caplog.text  # prediction does not care
    for _ in range(2):
        load_config(LITE, options, training=True)
    assert caplog.text.count("SOLVER.AMP is off: it needs a GPU, or a CPU with bfloat16") == (not expected)


def test_the_cpu_replaces_a_gpu_that_is_missing_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    from bccd_d2.config import _warn_once

    _warn_once.cache_clear()
    assert load_config(LITE).MODEL.DEVICE == "cpu"
    load_config(LITE)
    assert caplog.text.count("PyTorch finds no GPU: MODEL.DEVICE cuda becomes cpu") == 1
    with pytest.raises(
        InputError, match=r"MODEL\.DEVICE: found 'cuda', but PyTorch finds 0 GPUs here; expected 'cpu'"
    ):
        load_config(LITE, ["MODEL.DEVICE", "cuda"])
