"""Every command finds the file of a data set by its name, whether the root holds one source or several."""

import json
from types import SimpleNamespace

import cv2
import pytest

from bccd_d2.engine import ablation
from bccd_d2.errors import InputError
from bccd_d2.structures.dataset_files import dataset_file, dataset_files
from tests.engine.tiny import LITE, TINY, write_data
from tools import ablate, evaluate, train_net, tune_thresholds, visualize


@pytest.fixture(scope="module", params=["one source", "two sources"])
def run(request, tmp_path_factory):
    """A short run on a root of one source or of two: its folder, its root and its validation sets."""
    root = tmp_path_factory.mktemp("root")
    sources = ["bccd"] if request.param == "one source" else ["pairs", "voc"]
    for source in sources:
        write_data(root if source == "bccd" else root / source)
    train = tuple(f"{source}_train" for source in (*sources, sources[0]))
    val = tuple(f"{source}_val" for source in sources)
    out = tmp_path_factory.mktemp("out")
    options = [*TINY, "MODEL.WEIGHTS", "", "DATASETS.TRAIN", str(train), "DATASETS.TEST", str(val)]
    given = ["--config-file", str(LITE), "--data-root", str(root), "--fast-dev-run", *options]
    train_net.main(train_net.argument_parser().parse_args([*given, "OUTPUT_DIR", str(out)]))
    return SimpleNamespace(folder=out / "fast_dev_run", root=root, val=val)


def test_a_short_run_has_two_images_of_each_source(run):
    for name, file in dataset_files(run.folder / "data").items():
        assert len(json.loads(file.read_text())["images"]) == 2, name
    assert set(dataset_files(run.folder / "data")) == set(dataset_files(run.root))
    assert (run.folder / "viz" / "metrics.png").is_file()


def test_evaluation_alone_reports_every_source(run, tmp_path):
    options = ["MODEL.WEIGHTS", str(run.folder / "model_final.pth"), "OUTPUT_DIR", str(tmp_path)]
    given = ["--config-file", str(run.folder / "config.yaml"), "--data-root", str(run.root), "--eval-only"]
    train_net.main(train_net.argument_parser().parse_args([*given, *options]))
    parts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["parts"]
    assert list(parts) == [name.removeprefix("bccd_") for name in run.val]
    results = json.loads((tmp_path / "results.json").read_text())
    for name, part in zip(run.val, parts.values()):
        assert part["compared"]["Ground truth"] == str(dataset_file(run.root, name))
        assert 100 * part["intervals"]["all"]["Dice"]["value"] == pytest.approx(
            results[name]["overlap"]["Dice"]
        )


def test_a_run_is_evaluated_drawn_and_tuned_by_the_name_of_its_data_set(run, tmp_path, capsys):
    name = run.val[-1]
    part = name.removeprefix("bccd_")
    given = ["--run", str(run.folder), "--part", name, "--bootstrap-samples", "2", "--shown", "0"]
    evaluate.main([*given, "--output", str(tmp_path / "out")])
    parts = json.loads((tmp_path / "out" / "metrics.json").read_text())["parts"]
    assert list(parts) == [part]
    assert parts[part]["compared"]["Ground truth"] == str(dataset_file(run.folder / "data", name))

    tune_thresholds.main(["--run", str(run.folder), "--dataset", name, "--output", str(tmp_path / "t.yaml")])
    assert f"2 images of {name}" in (tmp_path / "t.yaml").read_text()

    capsys.readouterr()
    visualize.main(["--run", str(run.folder), "--output", str(tmp_path / "viz")])
    assert cv2.imread(str(tmp_path / "viz" / "training_images.png")) is not None
    assert part.replace("_", " ").capitalize() in capsys.readouterr().out


def test_an_ablation_predicts_the_images_of_each_data_set(run, tmp_path, monkeypatch):
    truths = []

    def tool(name, arguments, folder):
        if name == "train_net":
            zeros = {group: {metric: 0.0 for _, metric in ablation.METRICS} for group, _ in ablation.METRICS}
            (folder / "results.json").write_text(json.dumps({run.val[0]: zeros}))
        elif name == "evaluate":
            truths.append(arguments[arguments.index("--truth") + 1])
            evaluate.main(["--predictions", truths[-1], *arguments[2:], "--bootstrap-samples", "2"])
        else:
            assert all(cv2.imread(path) is not None for path in arguments[3 : arguments.index("--output")])

    monkeypatch.setattr(ablation, "_run", tool)
    plan = tmp_path / "plan.yaml"
    options = {"DATASETS.TRAIN": [run.val[0].replace("val", "train")], "DATASETS.TEST": list(run.val)}
    rows = {"base": {}}
    plan.write_text(json.dumps({"config": str(LITE), "options": options, "seeds": [7], "rows": rows}))
    given = ["--plan", str(plan), "--data-root", str(run.root), "--output", str(tmp_path / "out")]
    ablate.main([*given, "--predict"])
    assert truths == [str(dataset_file(run.root, name)) for name in run.val]


def test_the_name_of_a_data_set_gives_its_file(tmp_path):
    files = [
        *(tmp_path / "annotations" / f"instances_{part}.json" for part in ("train", "other")),
        tmp_path / "bccd" / "annotations" / "instances_val.json",
        tmp_path / "my_lab" / "annotations" / "instances_train.json",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    train, other, val, lab = files
    assert dataset_files(tmp_path) == {"bccd_train": train, "bccd_val": val, "my_lab_train": lab}
    assert list(dataset_files(tmp_path, "x")) == ["x_train", "bccd_val", "my_lab_train"]
    names = {"train": train, "bccd_train": train, "val": val, "other": other, "my_lab_train": lab}
    assert {name: dataset_file(tmp_path, name) for name in names} == names
    with pytest.raises(
        InputError, match="found the data sets bccd_train, bccd_val, my_lab_train, expected lab_train"
    ):
        dataset_file(tmp_path, "lab_train")
    with pytest.raises(InputError, match="found none; --data-root is a folder"):
        dataset_files(tmp_path / "annotations")
