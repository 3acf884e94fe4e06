import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from bccd_d2.data.augmentation import Rot90Transform, background_color, leaves
from bccd_d2.data.crop import RandomZoomCrop
from bccd_d2.data.pipeline import PRESETS, build_pipeline
from bccd_d2.errors import InputError
from tests.data.shapes import disc, smear

HEIGHT, WIDTH = 96, 128


def seeded(seed):
    np.random.seed(seed)  # noqa: NPY002  what Detectron2 seeds


def draw_polygon(points, height, width):
    """Mask of a polygon given in corner coordinates (pixel (0, 0) covers [0, 1] x [0, 1])."""
    return polygon2mask((height, width), points[:, ::-1] - 0.5)


def polygon(center=(60, 45), radii=(34, 22), points=60):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([center[0] + radii[0] * np.cos(angle), center[1] + radii[1] * np.sin(angle)], axis=1)


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_exact_and_invertible(turns):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    turn = Rot90Transform(turns, HEIGHT, WIDTH)
    turned = turn.apply_image(image)
    np.testing.assert_array_equal(turn.inverse().apply_image(turned), image)
    # Every pixel is found where its centre is said to go.
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centers = np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5
    moved = turn.apply_coords(centers)
    x, y = (moved - 0.5).astype(int).T
    np.testing.assert_array_equal(turned[y, x], image.reshape(-1, 3))
    np.testing.assert_array_equal(turn.inverse().apply_coords(moved), centers)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.3, 0.5, 1.0]), st.booleans())
def test_a_crop_takes_polygon_and_label_map_to_the_same_place(seed, scale, zoom):
    seeded(seed)
    points = polygon()
    mask = draw_polygon(points, HEIGHT, WIDTH)
    crop = RandomZoomCrop([64, 80], scale, (0.7, 1.5) if zoom else (1.0, 1.0))
    tfm = crop.get_transform(mask)
    labels = tfm.apply_segmentation(mask[..., None].astype(np.uint16))
    assert labels.shape[:2] == tfm.apply_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).shape[:2]
    expected = draw_polygon(tfm.apply_coords(points), *labels.shape[:2])
    # They may differ along the border, by no more than a pixel; what lies outside of the crop is not known.
    kernel = np.ones((3, 3), np.uint8)
    inside = slice(1, -1), slice(1, -1)
    assert (labels[..., 0] >= cv2.erode(expected.astype(np.uint8), kernel))[inside].all()
    assert (labels[..., 0] <= cv2.dilate(expected.astype(np.uint8), kernel))[inside].all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.3, 2), st.integers(0, 1000))
def test_crops_are_equal_in_size_wherever_the_image_is_large_enough(height, width, scale, seed):
    seeded(seed)
    image = np.zeros((200, 150, 3), np.uint8)
    tfm = RandomZoomCrop([height, width], scale, (0.5, 2.0)).get_transform(image)
    assert 0 <= tfm.x <= 150 - tfm.width
    assert 0 <= tfm.y <= 200 - tfm.height
    if tfm.height < 200:
        assert tfm.new_height == max(1, round(height * scale))
    if tfm.width < 150:
        assert tfm.new_width == max(1, round(width * scale))
    assert tfm.apply_image(image).shape[:2] == (tfm.new_height, tfm.new_width)


GEOMETRIC = [
    ["Affine", {"scale": [0.8, 1.2], "rotate": [-30, 30], "shear": [-8, 8], "fill": "background", "p": 1}],
    ["ElasticTransform", {"alpha": 75, "sigma": 8, "fill": "background", "p": 1}],
    ["Perspective", {"scale": [0.05, 0.08], "fill": "background", "p": 1}],
    ["HorizontalFlip", {"p": 1}],
    ["OneOf", {"transforms": [["Transpose", {"p": 1}], ["VerticalFlip", {"p": 1}]], "p": 1}],
]


@pytest.mark.parametrize("entry", GEOMETRIC, ids=lambda entry: entry[0])
def test_polygon_and_label_map_stay_together(entry):
    points = polygon()
    mask = draw_polygon(points, HEIGHT, WIDTH)
    image = smear(HEIGHT, WIDTH, [mask])
    augmentation = build_pipeline([entry])
    for seed in range(5):
        seeded(seed)
        tfm = augmentation.get_transform(image)
        labels = tfm.apply_segmentation(mask.astype(np.uint16))
        assert set(np.unique(labels)) <= {0, 1}
        assert iou(labels > 0, draw_polygon(tfm.apply_coords(points), *labels.shape)) > 0.92
        # Cells have a green level near 110, background near 228.
        assert iou(labels > 0, (tfm.apply_image(image)[..., 1] < 170) & (labels >= 0)) > 0.9


@pytest.mark.parametrize("preset", ["mild", "strong"])
def test_a_draw_is_replayed_the_same_and_no_label_is_invented(preset):
    image = smear(HEIGHT, WIDTH, [disc(HEIGHT, WIDTH, 40, 40, 20)])
    labels = np.random.default_rng(0).choice([0, 300, 65000], (HEIGHT, WIDTH, 2)).astype(np.uint16)
    augmentation = build_pipeline(PRESETS[preset].pipeline)
    seeded(3)
    transforms = [augmentation.get_transform(image) for _ in range(12)]
    # Later draws, and images of another colour, must not change what an earlier one does.
    for tfm in transforms:
        np.testing.assert_array_equal(tfm.apply_image(image.copy()), tfm.apply_image(image))
        moved = tfm.apply_segmentation(labels)
        assert set(np.unique(moved)) <= {0, 300, 65000}
        np.testing.assert_array_equal(moved[..., 1], tfm.apply_segmentation(labels[..., 1]))
    assert len({tfm.apply_image(image).tobytes() for tfm in transforms}) > 5


@pytest.mark.parametrize("preset", ["mild", "strong"])
def test_transforms_are_drawn_independently_of_each_other(preset):
    entries = PRESETS[preset].pipeline
    augmentation = build_pipeline(entries)
    image = smear(32, 32, [])
    ran = np.zeros((600, len(entries)), bool)
    for seed in range(600):
        seeded(seed)
        steps = augmentation.get_transform(image).steps
        tops = [augmentation.pipeline.transforms.index(_top(augmentation, step)) for step in steps]
        ran[seed, tops] = True
    expected = np.array([parameters["p"] for _, parameters in entries])
    np.testing.assert_allclose(ran.mean(0), expected, atol=0.08)
    correlation = np.corrcoef(ran.T) - np.eye(len(entries))
    assert np.abs(correlation).max() < 0.15


def _top(augmentation, step):
    """The entry of the pipeline that a step belongs to."""
    return next(t for t in augmentation.pipeline.transforms if step.transform in leaves(t))


def test_colours_are_taken_as_rgb_in_either_order():
    image = smear(HEIGHT, WIDTH, [disc(HEIGHT, WIDTH, 40, 40, 20)])
    entry = [
        "HueSaturationValue",
        {"hue_shift_limit": [20, 20], "sat_shift_limit": 0, "val_shift_limit": 0, "p": 1},
    ]
    bgr = build_pipeline([entry], "BGR").get_transform(image).apply_image(image)
    rgb_image = np.ascontiguousarray(image[..., ::-1])
    rgb = build_pipeline([entry], "RGB").get_transform(rgb_image).apply_image(rgb_image)
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])
    assert (bgr != image).any()


def test_uncovered_corners_become_background():
    image = smear(HEIGHT, WIDTH, [disc(HEIGHT, WIDTH, 64, 48, 20)])
    entry = ["Affine", {"rotate": [45, 45], "fit_output": False, "fill": "background", "p": 1}]
    corner = build_pipeline([entry]).get_transform(image).apply_image(image)[0, 0]
    np.testing.assert_allclose(corner, background_color(image), atol=1)
    np.testing.assert_allclose(corner, (232, 228, 226), atol=6)


def test_a_cut_out_hole_is_cut_from_the_mask_too():
    image = smear(HEIGHT, WIDTH, [disc(HEIGHT, WIDTH, 64, 48, 40)])
    hole = {"num_holes_range": [3, 3], "hole_height_range": [0.2, 0.2], "hole_width_range": [0.2, 0.2]}
    entry = ["CoarseDropout", {**hole, "fill": 0, "fill_mask": 0, "p": 1}]
    tfm = build_pipeline([entry]).get_transform(image)
    hidden = (tfm.apply_image(image) == 0).all(-1)
    assert hidden.sum() > 300
    np.testing.assert_array_equal(tfm.apply_segmentation(np.ones((HEIGHT, WIDTH), np.uint16)) == 0, hidden)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["Blurr", {}], r"PIPELINE\[1\] \(Blurr\).*no image transform of this name; did you mean Blur\?"),
        (["Blur", {"blur_limitt": 3}], r"\(Blur\): Argument\(s\) 'blur_limitt' are not valid"),
        (["GaussNoise", {"std_range": [3, 1]}], r"\(GaussNoise\): std_range: .*found \(3, 1\)"),
        (["OneOf", {"transforms": [["Blur", {}], ["Foo", {}]]}], r"\(OneOf\)\.transforms\[1\] \(Foo\)"),
        (["OneOf", {"transforms": []}], r"\(OneOf\): transforms is \[\]"),
        (["SomeOf", {"transforms": [["Blur", {}]], "p": 3.0}], r"\(SomeOf\): p is 3\.0"),
        (["Mosaic", {}], r"\(Mosaic\): it needs mosaic_metadata beside the image"),
        (["GaussianBlur", {"fill": "background"}], r"\(GaussianBlur\): .*'fill'"),
        (["Blur", 3], r"PIPELINE\[1\] is \['Blur', 3\]; expected \[name, \{parameter: value\}\]"),
    ],
)
def test_a_wrong_entry_is_named(entry, message):
    with pytest.raises(InputError, match=message):
        build_pipeline([["HorizontalFlip", {}], entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["Normalize", {"p": 1}], r"makes float32 .*\(Normalize\); expected uint8"),
        (["ToGray", {"num_output_channels": 1, "p": 1}], r"\(ToGray\); expected uint8 with three channels"),
        (["RandomCrop", {"height": 900, "width": 900, "p": 1}], r"fails on an image of \(96, 128, 3\)"),
    ],
)
def test_a_transform_that_yields_no_image_is_named(entry, message):
    with pytest.raises(InputError, match=message):
        build_pipeline([entry]).get_transform(smear(HEIGHT, WIDTH, []))
