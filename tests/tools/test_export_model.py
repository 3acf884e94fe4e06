import importlib.util
import re

import cv2
import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.exporting.exported import ExportedPredictor
from bccd_d2.synthetic import draw_smear
from tests.conftest import REPOSITORY
from tests.inference.tiny_network import write_tiny_run


def command(name):
    """The ``main`` of a command, in this process: torch is loaded already."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_run_is_exported_and_checked_on_given_images(tmp_path, capsys):
    write_tiny_run(tmp_path)
    image = draw_smear(1, 200, 160).image
    cv2.imwrite(str(tmp_path / "smear.png"), image)
    export, output = command("export_model"), tmp_path / "cells.ts"
    arguments = ["--run", str(tmp_path), "--output", str(output), "--check", str(tmp_path / "smear.png")]
    export(arguments)
    assert re.search(r"\| smear\.png +\| +20 \| +0\.0", capsys.readouterr().out)
    assert len(ExportedPredictor(output).predict_cells(image)) > 3
    with pytest.raises(InputError, match=r"cells\.ts exists; give --overwrite"):
        export(arguments)
    with pytest.raises(SystemExit, match="0"):
        export(["--help"])
    assert "--check" in capsys.readouterr().out


def test_options_of_packages(tmp_path, capsys):
    write_tiny_run(tmp_path)
    export = command("export_model")
    for arguments, message in (
        (["--output", "cells.ts", "--license", "MIT"], "--license: only for an --output that ends with .zip"),
        (["--output", "cells.zip"], "give the --license of the weights"),
    ):
        with pytest.raises(SystemExit, match="2"):
            export(["--run", str(tmp_path), *arguments])
        assert message in capsys.readouterr().err
