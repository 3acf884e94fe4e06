import io
import sys
import zipfile

import numpy as np
import pytest
import yaml

from bccd_d2.errors import InputError
from bccd_d2.inference.exporting import bioimageio_package
from bccd_d2.inference.exporting.bioimageio_package import PackageTexts, export_package, read_citation
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.synthetic import draw_smear
from tests.conftest import REPOSITORY
from tests.inference.tiny_network import write_tiny_run

IMAGES = [draw_smear(1, 260, 200).image, draw_smear(2, 131, 222).image]
CARD = "# Card\n\nMore: [the page](../docs/model.md), [torch](https://pytorch.org)."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_tiny_run(folder), str(folder / "model_final.pth")


@pytest.fixture(scope="module")
def texts():
    return PackageTexts("CC-BY-4.0", *read_citation(REPOSITORY / "CITATION.cff"), card=CARD)


def test_bioimageio_runs_the_package(run, texts, tmp_path):
    """Writing it has run bioimageio's own test."""
    reason = "bioimageio.core is absent: pip install 'bccd_d2[bioimageio]'"
    core = pytest.importorskip("bioimageio.core", reason=reason)
    path = tmp_path / "cells.zip"
    found = export_package(*run, path, texts, IMAGES, score_threshold=0.75)
    assert [one.cells for one in found] == [20, 20]
    assert all(equal >= 0.999 for one in found for equal in one.equal.values())
    assert list(tmp_path.iterdir()) == [path]

    image = draw_smear(3, 150, 97).image
    options = PredictionOptions(score_threshold=0.75, tile_size=1000)
    expected = BCCDPredictor(*run, options, cpu_mode="plain").predict_cells(image).label_image()
    model = core.load_model_description(path)
    rgb = image[:, :, ::-1].transpose(2, 0, 1)[None].copy()  # uint8
    for weights in ("torchscript", "onnx"):
        with core.create_prediction_pipeline(model, weight_format=weights, devices=["cpu"]) as pipeline:
            sample = core.digest_spec.create_sample_for_model(model, inputs={"image": rgb})
            labels = pipeline.predict_sample_without_blocking(sample).members["labels"].data.to_numpy()
        assert (labels[0, 0] == expected).mean() >= 0.999

    with zipfile.ZipFile(path) as package:
        description = yaml.safe_load(package.read("rdf.yaml"))
        expected, readme = (
            np.load(io.BytesIO(package.read("test_output.npy"))),
            package.read("README.md").decode(),
        )
    assert expected.shape == (1, 1, 200, 260) and expected.max() == 20
    assert (
        description["authors"] == [{"name": "The bccd_d2 authors"}] and description["license"] == "CC-BY-4.0"
    )
    assert {"Mask R-CNN", "Detectron2"} <= {
        name
        for entry in description["cite"]
        for name in ("Mask R-CNN", "Detectron2")
        if name in entry["text"]
    }
    assert "More: the page, [torch](https://pytorch.org)." in readme and "## Card" in readme


def test_a_missing_package_names_the_extra(run, texts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioimageio.core", None)
    with pytest.raises(InputError, match=r"needs bioimageio.*pip install 'bccd_d2\[bioimageio\]'"):
        export_package(*run, tmp_path / "cells.zip", texts, IMAGES, score_threshold=0.5)


@pytest.mark.parametrize("fault", ["labels", "refused", "stain"])
def test_a_faulty_package_is_not_written(run, texts, tmp_path, monkeypatch, fault):
    def refuse(package):
        raise InputError("bioimageio.core refuses it")

    cfg, weights = run
    test = refuse if fault == "refused" else (lambda package: None)
    monkeypatch.setattr(bioimageio_package, "_bioimageio_test", lambda path: test)
    message = "bioimageio.core refuses it"
    if fault == "labels":
        pytest.importorskip("onnxruntime", reason="onnxruntime is absent: pip install 'bccd_d2[onnx]'")
        monkeypatch.setattr(bioimageio_package, "trace", trace_another)
        message = r"labels\.pt gives 0\.00% of the pixels of image 1 .* expected 99\.9%"
    elif fault == "stain":
        cfg = cfg.clone()
        cfg.INPUT.STAIN.ENABLED = True
        message = r"INPUT\.STAIN cannot be part of a package: expected ENABLED False"
    with pytest.raises(InputError, match=message):
        export_package(cfg, weights, tmp_path / "cells.zip", texts, IMAGES, score_threshold=0.75)
    assert list(tmp_path.iterdir()) == []


def trace_another(network, example, path, *names, trace=bioimageio_package.trace, **options):
    """Trace a network that gives other labels."""
    inner = network.forward
    network.forward = lambda images: inner(images) + 1
    trace(network, example, path, *names, **options)
    network.forward = inner


def test_citations(tmp_path):
    path = tmp_path / "CITATION.cff"
    with pytest.raises(InputError, match=r"CITATION\.cff is not there; --citation names"):
        read_citation(path)
    path.write_text("title: bccd_d2")
    with pytest.raises(InputError, match="expected authors and references"):
        read_citation(path)
    person = "{given-names: Ada, family-names: Lovelace}"
    path.write_text(
        f"authors: [{person}]\nreferences:\n- {{authors: [{person}], title: Notes, year: 1843, doi: 10.1/2}}\n"
        f"- {{authors: [{person}], title: Nowhere, year: 1844}}"
    )
    assert read_citation(path) == (["Ada Lovelace"], [("Ada Lovelace: Notes (1843)", "10.1/2")])
