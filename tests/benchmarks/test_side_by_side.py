"""The comparison's budget, table and plot, and its command from end to end on tiny data."""

import json
import time

import numpy as np
import pytest
import side_by_side
import torch
from baselines import detectron2_methods, torchvision_method
from baselines.detectron2_methods import build_own
from baselines.evaluator import Evaluator
from baselines.method import Budget, Point, Setting
from baselines.results import Result, results_table
from baselines.torchvision_method import TorchvisionMaskRCNN, build_model

from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from bccd_d2.structures.cells import Cells
from tests.engine.tiny import HEIGHT, WIDTH, write_data


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self):
        return self.now


def test_a_budget_counts_training_alone_and_has_each_moment_evaluated_once():
    clock = Clock()

    def evaluate():
        clock.now += 1000  # must not count
        return {"AP": budget.iterations}

    used = []
    budget = Budget(10, [0.25, 0.5, 1], clock, used.append)
    clock.now += 7  # nor must building the model
    budget.start()
    ends = []
    for _ in range(4):
        clock.now += 3
        ends.append(budget.step(evaluate))
    assert ends == [False, False, False, True]
    assert used == [3, 6, 9, 12]
    # 3 s are 30 %, 6 s 60 %; at 9 s no moment has come; 12 s are the end.
    assert budget.points == [Point(3, 1, {"AP": 1}), Point(6, 2, {"AP": 2}), Point(12, 4, {"AP": 4})]
    assert budget.share == 1
    # A step that passes several moments is evaluated once.
    budget = Budget(10, [0.25, 0.5, 1], clock)
    budget.start()
    clock.now += 50
    assert budget.step(dict)
    assert budget.points == [Point(50, 1, {})]


@pytest.mark.parametrize("moments", [[], [0.5], [0.5, 0.25, 1], [0, 1], [0.5, 0.5, 1]])
def test_moments_that_are_none_are_refused(moments):
    with pytest.raises(InputError, match="rising shares in"):
        Budget(10, moments, Clock())


METRICS = {"AP": 0.5, "AP low": 0.4, "AP high": 0.625, "AP50": 0.75, "F1": 0.7, "Dice": 0.9}
METRICS |= {"interior AP": 0.55, "interior F1": 0.8, "seconds an image": 1.5}


def results():
    early = Point(15, 10, METRICS | {"AP": 0.25})
    last = Point(60, 40, METRICS)
    return [
        Result("classical", "thresholds", 0, {}, [Point(0, 0, METRICS | {"AP low": None, "AP high": None})]),
        Result("trained", "two crops", 3_140_000, {}, [early, last]),
        Result("lost", "too fast", 1_000_000, {}, [], "the loss is nan"),
    ]


def test_the_table_has_the_last_point_and_says_what_each_method_is():
    lines = results_table(results()).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0][:5] == ["method", "trained parameters", "iterations", "s a step", "mask AP"]
    assert cells[2][:7] == ["classical", "", "", "", "0.500", "to", "0.750"]
    assert cells[3] == [
        *("trained", "3.1 M", "40", "1.50", "0.500", "0.400 to 0.625", "0.750", "0.700", "0.900"),
        *("0.550", "0.800", "1.50"),
    ]
    assert cells[4][:3] == ["lost", "1.0 M", "diverged"]
    assert "- **trained**: two crops." in lines


def test_a_result_is_read_back_with_the_same_settings_only(tmp_path):
    result = Result("a", "b", 5, {"minutes": 1.0}, [Point(1.5, 2, METRICS)], "nan")
    assert Result.read(tmp_path, {"minutes": 1.0}) is None
    result.write(tmp_path)
    assert Result.read(tmp_path, {"minutes": 1.0}) == result
    with pytest.raises(InputError, match=r"measured with minutes 1.0, not 2.0"):
        Result.read(tmp_path, {"minutes": 2.0})
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="delete it"):
        Result.read(tmp_path, {})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Drawn images of three discs."""
    return write_data(tmp_path_factory.mktemp("tiny"))


def setting(root, **extra):
    return Setting(root, "val", 0, side_by_side.OWN, **extra)


def test_the_truth_is_perfect_and_nothing_is_worth_nothing(root):
    evaluator = Evaluator(root)
    truth = {read_image(str(i.path)).tobytes(): i.truth for i in evaluator._truth.images}
    perfect = evaluator(lambda pixels: truth[pixels.tobytes()])
    assert perfect["AP"] == perfect["F1"] == perfect["Dice"] == perfect["interior AP"] == pytest.approx(1)
    assert perfect["AP low"] == perfect["AP high"] == pytest.approx(1)
    nothing = evaluator(lambda pixels: Cells.from_masks(*pixels.shape[:2], []))
    assert nothing["AP"] == nothing["F1"] == nothing["Dice"] == 0
    with pytest.raises(InputError, match=r"found the data sets bccd_train, bccd_val, expected test"):
        Evaluator(root, "test")


def test_torchvision_takes_weights_that_fit_and_says_when_none_does(tmp_path, capsys):
    # ImageNet's names for the backbone; heads of 91 classes, and the name that layers of old files had.
    weight = torch.full((64, 3, 7, 7), 0.5)
    torch.save({"conv1.weight": weight, "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "resnet50.pth")
    model = build_model(1, tmp_path / "resnet50.pth")
    torch.testing.assert_close(model.backbone.body.conv1.weight.data, weight)
    assert not model.backbone.body.conv1.weight.requires_grad  # the first stages are frozen
    assert "1 of 2 tensors taken" in capsys.readouterr().out
    lateral = torch.full((256, 256, 1, 1), 0.25)
    head = torch.zeros(91, 1024)
    coco = {"backbone.fpn.inner_blocks.0.weight": lateral, "roi_heads.box_predictor.cls_score.weight": head}
    torch.save(coco, tmp_path / "coco.pth")
    model = build_model(1, tmp_path / "coco.pth")
    torch.testing.assert_close(model.backbone.fpn.inner_blocks[0][0].weight.data, lateral)
    assert model.roi_heads.box_predictor.cls_score.out_features == 2
    torch.save({"other": weight}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: no tensor in it fits"):
        build_model(1, tmp_path / "other.pth")


def test_torchvision_s_masks_lie_in_the_native_image(root, tmp_path):
    """A network that says one box in the half-size image, all inside."""
    method = TorchvisionMaskRCNN(setting(root), tmp_path)
    seen = []

    def network(images):
        seen.extend(images)
        return [
            {
                "boxes": torch.tensor([[5.0, 10.0, 15.0, 20.0]]),
                "labels": torch.tensor([1]),
                "scores": torch.tensor([0.75]),
                "masks": torch.ones(1, 1, 28, 28),
            }
        ]

    method._model = network
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = 255  # red
    cells = method.predict(image)
    assert seen[0].shape == (3, HEIGHT // 2, WIDTH // 2)
    assert seen[0].mean((1, 2)).tolist() == [1, 0, 0]
    assert cells.windows.tolist() == [[10, 20, 30, 40]] and cells.masks[0].all()
    assert cells.classes.tolist() == [0] and cells.scores.tolist() == [0.75]


def command(root, out, *more):
    side_by_side.main(["--data-root", str(root), "--output", str(out), "--minutes", "0.001", *map(str, more)])


def test_the_command_measures_all_and_nothing_twice(root, tmp_path, capsys, monkeypatch):
    for module in (detectron2_methods, torchvision_method):  # masks of 500 cells take seconds an image
        monkeypatch.setattr(module, "DETECTIONS", 20)
    out = tmp_path / "out"
    methods = ("classical", "detectron2-r18", "torchvision", "bccd_d2")
    command(root, out, "--moments", 100, "--methods", *methods)
    table = (out / "RESULTS.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:6]] == [
        side_by_side.METHODS[name][0] for name in methods
    ]
    assert (out / "quality_over_time.png").stat().st_size > 10_000
    for name in methods[1:]:
        found = json.loads((out / name / "result.json").read_text())
        assert found["points"][-1]["iterations"] >= 1 and found["parameters"] > 1e6
        assert 0 <= found["points"][-1]["metrics"]["AP"] <= 1
    monkeypatch.setattr(side_by_side, "measure", lambda *_: pytest.fail("measured twice"))
    command(root, out, "--moments", 100, "--methods", *methods)
    assert (out / "RESULTS.md").read_text() == table
    with pytest.raises(InputError, match="measured with seed 42, not 7"):
        command(root, out, "--moments", 100, "--seed", 7)
    with pytest.raises(InputError, match="--detectron2-weights: nowhere is not there"):
        command(root, out, "--detectron2-weights", "nowhere")


def test_own_model_is_evaluated_with_its_averaged_weights(root, tmp_path):
    method = build_own(setting(root), tmp_path)
    trainer, modes = method._trainer, []

    def evaluator(predict):
        predict(np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
        modes.append(trainer.evaluated_model.training)
        return {}

    method.train(Budget(1e-6, [1], time.process_time), evaluator)
    trained, averaged = next(trainer.model.parameters()), next(trainer.evaluated_model.parameters())
    assert trainer.evaluated_model is trainer.ema.module
    assert not torch.equal(trained, averaged)
    assert modes == [False] and trainer.model.training
