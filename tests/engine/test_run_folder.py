import hashlib
import json

import pytest

from bccd_d2.engine.run_folder import record_run, refuse_mixing, run_folder
from bccd_d2.errors import InputError


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    with run_folder(tmp_path / "run") as folder:
        assert folder == tmp_path / "run"
        with (
            pytest.raises(InputError, match=r"^OUTPUT_DIR: .*run is in use by process \d+ on "),
            run_folder(folder),
        ):
            pass


def test_what_a_killed_run_left_is_cleaned_up(tmp_path):
    (tmp_path / "inference" / "bccd_val").mkdir(parents=True)
    for left in (".model_0000001.77.partial.pth", "inference/bccd_val/.results.77.partial.json"):
        (tmp_path / left).write_bytes(b"half")
    (tmp_path / "model_0000001.pth").write_bytes(b"whole")
    (tmp_path / "metrics.json").write_text('{"iteration": 1}\n{"iterat')
    with run_folder(tmp_path):
        files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert files == {".lock", "model_0000001.pth", "metrics.json"}
        assert (tmp_path / "metrics.json").read_text() == '{"iteration": 1}\n'


def test_a_new_training_does_not_mix_with_an_old_one(tmp_path):
    refuse_mixing(tmp_path, resume=False)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    refuse_mixing(tmp_path, resume=True)
    with pytest.raises(InputError, match="holds a training already; give --resume"):
        refuse_mixing(tmp_path, resume=False)


def test_the_record_says_what_was_trained_on_and_a_resumed_run_is_held_to_it(tmp_path):
    annotations = tmp_path / "train.json"
    annotations.write_text("{}")
    record = record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=False)
    assert json.loads((tmp_path / "run.json").read_text()) == record
    assert record["seed"] == 42
    assert record["annotations"] == {"bccd_train": hashlib.sha256(b"{}").hexdigest()}
    assert record["packages"]["torch"]
    record_run(tmp_path, 42, {"bccd_train": annotations, "bccd_val": annotations}, resumed=True)
    annotations.write_text("{ }")
    with pytest.raises(InputError, match=r"train\.json is not the file that .* was trained on"):
        record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=True)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json: expected the record of a run"):
        record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=True)
    record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=False)
