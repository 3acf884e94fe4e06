"""The commands one after the other, as a user runs them: smears, conversion, training, figures, prediction."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools import mask as mask_util

from bccd_d2.inference.predictor import BCCDPredictor

REPOSITORY = Path(__file__).resolve().parents[2]
LITE = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
TINY = [
    *(
        "MODEL.FPN.OUT_CHANNELS",
        "16",
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        "16",
        "MODEL.ROI_MASK_HEAD.CONV_DIM",
        "16",
    ),
    *("INPUT.CROP.SIZE", "[128,128]", "SOLVER.IMS_PER_BATCH", "1"),
    *("TEST.EVAL_PERIOD", "0", "SOLVER.CHECKPOINT_PERIOD", "1", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "40", "TEST.DETECTIONS_PER_IMAGE", "20"),
]


def run(tool: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; its exit status must be ``status`` and it must not show a traceback."""
    command = [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)]
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == status, result.stdout[-3000:] + result.stderr[-3000:]
    if status:
        assert "Traceback" not in result.stderr
    return result


def train(folder: Path, iterations: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Train a tiny model on the data in ``folder``."""
    flags = [option for option in options if option.startswith("--")]
    return run(
        "train_net.py",
        *("--config-file", LITE, "--data-root", folder / "dataset", *flags),
        *("OUTPUT_DIR", folder / "model", "SOLVER.MAX_ITER", iterations, *TINY),
        *(option for option in options if not option.startswith("--")),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Synthetic smears, converted, and a model trained for two iterations and evaluated."""
    folder = tmp_path_factory.mktemp("a run")
    run("make_synthetic.py", "--output", folder / "smears", "--images", 8, "--seed", 1, "--size", "320x240")
    run("convert_bccd.py", "--root", folder / "smears", "--output", folder / "dataset")
    train(folder, 2)
    return folder


def test_resume_goes_on_and_evaluation_alone_agrees(folder):
    log = train(folder, 5, "--resume").stdout
    assert "Starting training from iteration 2" in log
    # The newest two of the five that both runs wrote.
    kept = sorted(path.stem for path in (folder / "model").glob("model_*.pth"))
    assert kept == ["model_0000003", "model_0000004", "model_final"]
    results = folder / "model" / "results.json"
    after_training = results.read_text()
    weights = folder / "model" / "model_final.pth"
    log = train(folder, 5, "--eval-only", "MODEL.WEIGHTS", str(weights)).stdout
    assert "Starting training" not in log
    assert results.read_text() == after_training
    assert (folder / "model" / "evaluation" / "report.html").is_file()


def test_an_ablation_trains_each_row_once(folder, tmp_path):
    plan = tmp_path / "plan.yaml"
    options = dict(zip(TINY[::2], TINY[1::2])) | {"SOLVER.MAX_ITER": 2}
    rows = {"base": {}, "no crop": {"INPUT.CROP.ENABLED": False}}
    plan.write_text(yaml.safe_dump({"config": str(LITE), "options": options, "seeds": [7], "rows": rows}))
    arguments = ["--plan", plan, "--data-root", folder / "dataset", "--output", tmp_path / "out"]
    arguments += ["--also-evaluate", f"again={folder / 'dataset'}"]
    out = run("ablate.py", *arguments).stdout
    assert (tmp_path / "out" / "RESULTS.md").read_text().strip() == out.strip()
    data, again = out.split("again:")
    assert data.removeprefix("data:").split() == again.split()
    assert "| no crop |" in out
    finished = tmp_path / "out" / "base" / "seed7" / "results.json"
    before = finished.stat().st_mtime_ns
    assert run("ablate.py", *arguments).stdout == out
    assert finished.stat().st_mtime_ns == before


def test_all_figures_of_a_run_are_drawn_into_one_folder(folder):
    out = run("visualize.py", "--run", folder / "model").stdout
    assert "AP50" in out
    figures = sorted(path.name for path in (folder / "model" / "viz").iterdir())
    data = ["anchors", "annotated_cells", "augmentations", "dataset_item", "stain_normalization"]
    data += ["training_crops", "training_images"]
    evaluated = ["best_images", "metrics", "training_loss", "worst_images"]
    assert figures == sorted(f"{name}.png" for name in data + evaluated)
    for name in figures:
        picture = cv2.imread(str(folder / "model" / "viz" / name))
        assert min(picture.shape[:2]) > 300
        assert np.ptp(picture) > 100


def test_a_run_is_judged_as_its_own_predictions_are(folder, tmp_path):
    run("evaluate.py", "--run", folder / "model", "--output", tmp_path / "run", "--shown", 1)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["parts"]["val"]
    results = json.loads((folder / "model" / "results.json").read_text())["bccd_val"]
    for name in ("IoU", "Dice", "AP", "AP50"):
        group = "overlap" if name in ("IoU", "Dice") else "segm"
        assert 100 * metrics["intervals"]["all"][name]["value"] == pytest.approx(results[group][name])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Configuration of the model" in page and "FILTER_EMPTY_ANNOTATIONS" in page
    predictions = folder / "model" / "inference" / "bccd_val" / "coco_instances_results.json"
    arguments = [
        predictions,
        folder / "model",
        "--data-root",
        folder / "dataset",
        "--output",
        tmp_path / "same.json",
    ]
    assert "Val, 1 images" in run("compare_runs.py", *arguments, "--part", "val").stdout
    figures = json.loads((tmp_path / "same.json").read_text())["Val"]["figures"]["all"]
    assert {one["difference"] for one in figures.values()} <= {0, None}


def test_the_classical_baseline_is_judged_by_the_same_command(folder, tmp_path):
    out = tmp_path / "classical.json"
    run("classical_baseline.py", "--data-root", folder / "dataset", "--output", out)
    printed = run("evaluate.py", "--predictions", out, "--data-root", folder / "dataset", "--shown", 0).stdout
    metrics = json.loads((tmp_path / "classical_evaluation" / "metrics.json").read_text())["parts"]["val"]
    assert metrics["intervals"]["all"]["Dice"]["value"] > 0.8
    assert f"{metrics['intervals']['all']['F1']['value']:.3f}" in printed
    assert (
        "exists; give --overwrite"
        in run("classical_baseline.py", "--data-root", folder / "dataset", "--output", out, status=1).stderr
    )


def test_predict_writes_coco_results_and_overlays(folder):
    images = folder / "images of mine"
    images.mkdir()
    source = next((folder / "smears" / "BCCD Dataset with mask" / "train" / "original").iterdir())
    image = cv2.imread(str(source))
    cv2.imwrite(str(images / "ein Bild.png"), image)
    (images / "broken.png").write_bytes(b"\x89PNG\r\n")
    output = folder / "predictions"
    arguments = ["--run", folder / "model", "--input", images, "--output", output, "--score-threshold", "0"]
    result = run("predict.py", *arguments, status=1)
    assert "skipped: " in result.stderr and "broken.png" in result.stderr

    overlay = cv2.imread(str(output / "overlays" / "ein Bild.png.png"))
    assert overlay.shape == image.shape
    assert (overlay != image).any()
    entries = json.loads((output / "predictions.json").read_text())
    predictor = BCCDPredictor(folder / "model" / "config.yaml", folder / "model" / "model_final.pth")
    cells = predictor(image)
    assert len(entries) == len(cells) > 0
    for entry, mask, score in zip(entries, cells.pred_masks.numpy(), cells.scores.tolist()):
        assert (entry["file_name"], entry["category"]) == ("ein Bild.png", "cell")
        assert entry["score"] == pytest.approx(score, abs=1e-3)
        np.testing.assert_array_equal(mask_util.decode(entry["segmentation"]).astype(bool), mask)

    written = (output / "predictions.json").read_bytes()
    again = run("predict.py", *arguments, status=1)
    assert "1 of 2 files are finished already" in again.stdout
    assert (output / "predictions.json").read_bytes() == written


def test_weights_that_cannot_be_downloaded_say_what_to_do(folder, tmp_path):
    config = REPOSITORY / "configs" / "mask_rcnn_R_50_FPN.yaml"
    weights = "http://127.0.0.1:9/model_final_f10217.pkl"
    arguments = ["--config-file", config, "--data-root", folder / "dataset"]
    options = ["OUTPUT_DIR", tmp_path, "DATALOADER.NUM_WORKERS", "0", "MODEL.WEIGHTS", weights]
    error = run("train_net.py", *arguments, *options, status=1).stderr.splitlines()[-1]
    assert "cannot be downloaded" in error
    assert "configs/mask_rcnn_R_50_FPN_scratch.yaml" in error


@pytest.mark.parametrize("tool", ["evaluate.py", "install_detectron2.py", "train_net.py"])
def test_commands_have_help(tool):
    out = run(tool, "--help").stdout
    assert "usage:" in out
    assert len(out.splitlines()) > 6


def test_commands_without_their_arguments_say_which(folder, tmp_path):
    assert "--config-file is needed" in run("train_net.py", status=2).stderr
    many = run("train_net.py", "--config-file", LITE, "--num-gpus", 99, status=1).stderr
    assert "error: --num-gpus 99: this machine has" in many
    half = run("predict.py", "--input", "x", "--output", tmp_path, "--weights", "x.pth", status=1).stderr
    assert "give both --config-file and --weights, or --run" in half
    number = run("visualize.py", "--run", folder / "model", "--image", 99, status=1).stderr
    assert "--image 99: bccd_train has images 0 to" in number
