import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.modeling import build_model

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.inference import finder
from bccd_d2.inference.finder import TestTimeAugmentation
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor, CellModel, Network
from bccd_d2.inference.tiling import plan_tiles
from bccd_d2.io.images import open_source
from tests.inference.blobs import BlobNetwork, draw

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
CELL_DIAMETER = 30.0
DISCS = [
    (x + 7 * (y % 3), y + 5 * (x % 4), 15 - x % 3) for x in range(20, 480, 45) for y in range(20, 300, 45)
]


def config(*options):
    few = ["TEST.DETECTIONS_PER_IMAGE", "40", "MODEL.RPN.POST_NMS_TOPK_TEST", "60"]
    return load_config(
        CONFIG, ["MODEL.DEVICE", "cpu", "INPUT.CELL_DIAMETER", str(CELL_DIAMETER), *few, *options]
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights as they are drawn, with a box head that finds something."""
    torch.manual_seed(0)
    model = build_model(config())
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(40)
        model.roi_heads.mask_head.predictor.weight.mul_(40)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def real(weights):
    return BCCDPredictor(config(), weights, cpu_mode="plain")


@pytest.fixture
def predictor(real, monkeypatch):
    """A predictor whose network finds dark discs."""
    monkeypatch.setattr(real, "network", BlobNetwork())
    return real


@pytest.fixture(scope="module")
def smear():
    return draw(320, 500, DISCS)


def sorted_windows(cells):
    return sorted(map(tuple, cells.windows.tolist()))


def test_it_says_what_detectron2_says(real, smear):
    """The paths differ in memory layout and in pasting; nothing else may."""
    image = smear[:200, :256]
    found = real(image)
    resized = cv2.resize(image, (128, 100), interpolation=cv2.INTER_AREA)
    tensor = torch.from_numpy(resized.transpose(2, 0, 1).copy())
    with torch.no_grad():
        expected = real.model([{"image": tensor, "height": 200, "width": 256}])[0]["instances"]
    expected = expected[expected.pred_masks.flatten(1).any(dim=1)]
    assert len(found) == len(expected) > 5
    assert torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(found.scores, expected.scores, atol=1e-5)
    assert (found.pred_classes == expected.pred_classes).all()
    assert found.pred_masks.dtype == torch.bool
    differing = (found.pred_masks != expected.pred_masks).flatten(1).sum(dim=1)
    assert differing.max() <= 3
    (evaluated,) = CellModel(config(), real.model)([{"image": tensor, "height": 200, "width": 256}])
    kept = evaluated["cells"][evaluated["cells"].areas > 0]
    assert np.array_equal(kept.scores.astype(np.float32), found.scores.numpy())
    assert torch.equal(
        evaluated["instances"].pred_masks.flatten(1).sum(dim=1), torch.from_numpy(evaluated["cells"].areas)
    )


def test_tiled_is_untiled(predictor, smear):
    whole = predictor.predict_cells(smear)
    assert len(whole) == len(DISCS)
    for tile_size, overlap in ((160, 64), (130, 40), (256, 100)):
        tiled = predictor.predict_cells(smear, PredictionOptions(tile_size=tile_size, overlap=overlap))
        assert len(tiled) == len(whole)
        assert whole.ious(tiled).max(axis=1).min() > 0.85
        assert np.count_nonzero(tiled.ious(tiled) > 0) == len(tiled)


def test_tiles_are_read_on_demand_from_a_file(predictor, smear, tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", smear[..., ::-1], photometric="rgb", tile=(64, 64), compression="zlib"
    )
    options = PredictionOptions(tile_size=128, overlap=48)
    with open_source(tmp_path / "a.tif") as source:
        asked = []
        read = source.read
        source.read = lambda *region: (asked.append(region), read(*region))[1]
        seen = []
        cells = predictor.predict_source(
            source, options, progress=lambda done, total: seen.append((done, total))
        )
    assert sorted_windows(cells) == sorted_windows(predictor.predict_cells(smear, options))
    assert max(width * height for _, _, width, height in asked) <= 128 * 128
    assert seen == [(done, len(asked)) for done in range(1, len(asked) + 1)]


def test_empty_tiles_cost_nothing_and_no_cell(predictor, monkeypatch):
    discs = [(60, 50, 15), (118, 130, 15), (860, 700, 15)]
    image = draw(760, 1000, discs)
    network = predictor.network
    seen = []
    options = PredictionOptions(tile_size=160, overlap=64)
    found = predictor.predict_cells(image, options, progress=lambda done, total: seen.append((done, total)))
    total = seen[-1][1]
    assert seen[-1] == (total, total)
    assert 3 <= len(network.seen) < total / 4
    assert len(predictor.predict_cells(draw(760, 1000, []), options)) == 0
    monkeypatch.setattr(finder, "is_empty", lambda image: False)
    assert sorted_windows(found) == sorted_windows(predictor.predict_cells(image, options))
    assert len(found) == len(discs)


def test_tiles_overlap_by_two_cells(predictor, smear, monkeypatch):
    asked = []
    monkeypatch.setattr(finder, "plan_tiles", lambda *given: asked.append(given) or plan_tiles(*given))
    predictor.predict_cells(smear, PredictionOptions(tile_size=160))
    predictor.predict_cells(smear, PredictionOptions(tile_size=64))
    monkeypatch.setattr(predictor, "training_diameter", 0.0)
    predictor.predict_cells(smear, PredictionOptions(tile_size=1000))
    assert [given[3] for given in asked] == [2 * CELL_DIAMETER, 32, 256]


def test_scale_diameter_and_microns_resize_to_the_training_magnification(predictor, smear, monkeypatch):
    large = cv2.resize(smear, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    expected = predictor.predict_cells(smear)
    monkeypatch.setattr(predictor, "_training_microns", 0.5)
    for way in ({"scale": 0.5}, {"diameter": 2 * CELL_DIAMETER}, {"microns_per_pixel": 0.25}):
        network = predictor.network = BlobNetwork()
        cells = predictor.predict_cells(large, PredictionOptions(**way))
        # INPUT.SCALE is 0.5.
        assert network.seen == [(160, 250, 3)]
        assert len(cells) == len(expected)
        assert (cells.height, cells.width) == (640, 1000)
        assert np.abs(np.sort(cells.areas) / np.sort(expected.areas) - 4).max() < 0.3
    tiled = predictor.predict_cells(large, PredictionOptions(scale=0.5, tile_size=160, overlap=64))
    assert len(tiled) == len(expected)


def test_a_source_that_knows_its_microns_is_resized_when_the_training_data_do(
    predictor, smear, tmp_path, monkeypatch
):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, smear[..., ::-1], photometric="rgb", resolution=(20_000, 20_000), resolutionunit="centimeter"
    )
    with open_source(path) as source:
        assert predictor.magnification_of(source).scale == 1
        monkeypatch.setattr(predictor, "_training_microns", 0.25)
        assert predictor.magnification_of(source).scale == pytest.approx(2)
        assert predictor.magnification_of(
            source, PredictionOptions(microns_per_pixel=0.125)
        ).scale == pytest.approx(0.5)
        assert predictor.magnification_of(source, PredictionOptions(scale=1.0)).scale == 1


def test_views_go_through_tiles_too(predictor, smear):
    options = PredictionOptions(tile_size=160, overlap=64, augmentation=TestTimeAugmentation(rot90=False))
    cells = predictor.predict_cells(smear, options)
    assert len(cells) == len(DISCS)
    assert predictor.predict_cells(smear).ious(cells).max(axis=1).min() > 0.85


def test_last_steps_are_done_when_asked_for(predictor):
    image = draw(120, 200, [(40, 60, 14), (64, 60, 14), (140, 40, 14), (160, 90, 14)])
    assert len(predictor.predict_cells(image)) == 3
    assert len(predictor.predict_cells(image, PredictionOptions(split_touching=True))) == 4
    boxes = predictor.predict_cells(image, PredictionOptions(no_overlap=True)).boxes
    assert np.array_equal(boxes, np.rint(boxes))


def test_tiles_as_full_as_the_model_can_fill_them_are_reported(predictor, smear, monkeypatch, caplog):
    monkeypatch.setattr(predictor, "_most_detections", 10)
    predictor.predict_cells(smear)
    assert "in 1 of 1 tiles the model found as many cells as it may" in caplog.text


def test_an_rgb_model_sees_rgb_and_stain_statistics_of_the_whole(weights, smear, monkeypatch):
    cfg = config("INPUT.STAIN.ENABLED", "True", "INPUT.FORMAT", "RGB", "INPUT.SCALE", "1.0")
    predictor = BCCDPredictor(cfg, weights)
    coloured = smear.copy()
    coloured[smear[..., 0] < 100] = (140, 60, 90)
    shown = []
    monkeypatch.setattr(predictor, "network", lambda images: (shown.extend(images), BlobNetwork()(images))[1])
    predictor.network.__dict__["batch_size"] = 1
    predictor.predict_cells(coloured)
    predictor.predict_cells(coloured, PredictionOptions(tile_size=160, overlap=64))
    whole, first_tile = shown[0], shown[1]
    # Steps of 64 (the coarsest stride) and the overlap.
    assert first_tile.shape == (128, 128, 3)
    assert np.array_equal(first_tile, whole[:128, :128])
    glass = whole[0, 499]
    assert glass.tolist() == [230, 230, 230]
    cell = whole[DISCS[0][1], DISCS[0][0]]
    # The target has a blue tint, b* = -22.9: in RGB the third channel is the largest.
    assert cell[2] > cell[0]


def test_modes_of_the_cpu_agree(real, smear):
    prepared = cv2.resize(smear[:160, :192], (96, 80), interpolation=cv2.INTER_AREA)
    (plain,) = Network(real.model, cpu_mode="plain")([prepared])
    for mode, tolerance in (("channels_last", 1e-4), ("bfloat16", 0.2)):
        network = Network(copy.deepcopy(real.model), cpu_mode=mode)
        assert network.mode == mode
        pooled = []
        network.model.roi_heads.register_forward_pre_hook(
            lambda _module, inputs, seen=pooled: seen.extend(level.dtype for level in inputs[1].values())
        )
        (found,) = network([prepared])
        # Boxes take the type of the features they are pooled from, and bfloat16 holds 500.3 as 500.
        assert set(pooled) == {torch.float32}
        assert abs(found.scores[:5] - plain.scores[:5]).max() < tolerance


def test_a_batch_that_does_not_fit_is_halved(real, monkeypatch):
    network = Network(real.model)
    network.batch_size = 8
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return [image.shape[1] for image in batch]

    monkeypatch.setattr(network, "_run", run)
    images = [np.zeros((4, 5 if index == 5 else 4, 3), np.uint8) for index in range(6)]
    assert network(images) == [4, 4, 4, 4, 4, 5]
    assert sizes == [5, 2, 2, 1, 1]
    assert network.batch_size == 2
    monkeypatch.setattr(
        network, "_run", lambda batch: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("no"))
    )
    with pytest.raises(torch.cuda.OutOfMemoryError):
        network(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold: expected a number from 0 to 1, found 1.5"),
        ({"overlap": 900}, "overlap: expected 0 to half the tile size"),
        ({"scale": float("nan")}, "scale: expected a number above 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        PredictionOptions(**options)
