"""Output appears whole or not at all."""

import errno
import signal
from pathlib import Path

import pytest

from bccd_d2.errors import InputError
from bccd_d2.files import staged_output


def everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_move_into_place_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with staged_output(out, ["x/one.txt", "two.txt"], overwrite=False) as staging:
        (staging / "x").mkdir()
        (staging / "x" / "one.txt").write_text("1")
        (staging / "two.txt").write_text("2")
        assert not (out / "two.txt").exists()
    assert everything(out) == {"two.txt": "2", str(Path("x/one.txt")): "1"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "two.txt").write_text("old")
    with pytest.raises(error), staged_output(tmp_path, ["two.txt"], overwrite=True) as staging:
        (staging / "two.txt").write_text("new")
        raise error
    assert everything(tmp_path) == {"two.txt": "old"}
    with pytest.raises(error), staged_output(tmp_path / "x" / "y", [], overwrite=False):
        raise error
    assert not (tmp_path / "x").exists()


def test_what_exists_is_replaced_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("old")
    with (
        pytest.raises(InputError, match=r"two\.txt: exists already; give --overwrite"),
        staged_output(tmp_path, ["two.txt"], overwrite=False),
    ):
        pytest.fail("the block must not run")
    with staged_output(tmp_path, ["two.txt"], overwrite=True) as staging:
        (staging / "two.txt").write_text("new")
    assert everything(tmp_path) == {"two.txt": "new"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"), staged_output(tmp_path / "file", [], overwrite=True):
        pytest.fail("the block must not run")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as raised, staged_output(out, [], overwrite=False):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(out)
    assert not out.exists()


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with staged_output(tmp_path, ["two.txt"], overwrite=False) as staging:
        (staging / "two.txt").write_text("first")
        with (
            pytest.raises(InputError, match=r"--output: .* is in use by process"),
            staged_output(tmp_path, ["two.txt"], overwrite=True),
        ):
            pytest.fail("the block must not run")
    assert everything(tmp_path) == {"two.txt": "first"}


def test_what_a_killed_run_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-1" / "x").mkdir(parents=True)
    (tmp_path / ".unfinished-1" / "x" / "one.txt").write_text("half")
    with staged_output(tmp_path, ["two.txt"], overwrite=False) as staging:
        (staging / "two.txt").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["two.txt"]


def test_files_move_together_whatever_signal_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), staged_output(tmp_path, ["1", "2"], overwrite=False) as staging:
        for name in "12":
            (staging / name).write_text(name)
    assert everything(tmp_path) == {"1": "1", "2": "2"}
