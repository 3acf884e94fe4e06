import hashlib
import json

import pytest

from bccd_d2.engine.run_folder import locked, record_run, refuse_mixing
from bccd_d2.errors import InputError


def test_a_folder_is_one_runs_at_a_time(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(InputError, match=r"is in use by process \d+ on "), locked(tmp_path / "run"):
            pass
        with locked(tmp_path / "other"):
            pass
    with pytest.raises(RuntimeError), locked(tmp_path / "run"):
        raise RuntimeError
    with locked(tmp_path / "run"):
        pass


def test_a_new_training_does_not_mix_with_an_old_one(tmp_path):
    refuse_mixing(tmp_path, resume=False)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    refuse_mixing(tmp_path, resume=True)
    with pytest.raises(InputError, match="holds a training already; go on with --resume"):
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
    with pytest.raises(
        InputError, match=r"train\.json is not the file that .* expected SHA-256 44136fa355b3"
    ):
        record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=True)
    record_run(tmp_path, 42, {"bccd_train": annotations}, resumed=False)
