import errno
import json
import os
import signal
from datetime import date
from multiprocessing import get_context

import pytest

from bccd_d2.errors import InputError
from bccd_d2.files import clear_partial, locked, naming, read_yaml, replacing, write_json
from tests.full_disk import files_no_larger_than


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_the_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_json_round_trip_and_no_nan(tmp_path):
    path = tmp_path / "ünï code.json"
    write_json(path, {"ä": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert names(tmp_path) == [path.name]


def test_a_file_for_which_there_is_no_room_is_named_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, "old")
    with pytest.raises(OSError, match="too large") as raised, files_no_larger_than(1000):
        write_json(path, "x" * 2000)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert json.loads(path.read_text()) == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as raised, replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("the block must not run")
    assert str(tmp_path / "file") in str(raised.value)
    with pytest.raises(OSError) as raised, replacing(tmp_path / "a.txt") as temporary:
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))
    assert raised.value.filename == str(tmp_path / "a.txt")


def test_an_error_that_names_a_file_keeps_its_name(tmp_path):
    for named, told in ((None, str(tmp_path)), ("b", "b")):
        with pytest.raises(OSError) as raised, naming(tmp_path):
            raise OSError(errno.ENOSPC, "full", named)
        assert raised.value.filename == told
    with pytest.raises(OSError, match="no number"), naming(tmp_path):
        raise OSError("no number")


def test_what_a_killed_process_left_is_deleted(tmp_path):
    with replacing(tmp_path / "a.b.json") as temporary:
        temporary.write_text("half")
        clear_partial(tmp_path)
        assert names(tmp_path) == []
        temporary.write_text("whole")
    clear_partial(tmp_path)
    assert names(tmp_path) == ["a.b.json"]


def test_a_folder_is_held_by_one(tmp_path):
    folder = tmp_path / "deep" / "run"
    with locked(folder, "--output"):
        in_use = rf"^--output: .*run is in use by process {os.getpid()} on "
        with pytest.raises(InputError, match=in_use), locked(folder, "--output"):
            pass
        with locked(tmp_path / "other", "--output"):
            pass
        assert names(folder) == [".lock"]
    assert names(tmp_path) == []
    folder.mkdir(parents=True)
    with pytest.raises(RuntimeError), locked(folder, "--output"):
        (folder / "a").touch()
        raise RuntimeError
    assert names(folder) == ["a"]


def hold(folder, connection):
    with locked(folder, "--output"):
        connection.send("held")
        signal.pause()


def test_the_folder_of_a_killed_process_is_free(tmp_path):
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    with pytest.raises(InputError, match=f"process {process.pid} on"), locked(tmp_path, "--output"):
        pass
    process.kill()
    process.join()
    assert names(tmp_path) == [".lock"]
    with locked(tmp_path, "--output"):
        pass
    assert names(tmp_path) == []


def test_a_fork_of_a_killed_holder_holds_nothing(tmp_path):
    """As the processes that load data, which outlive a killed training for seconds."""
    reading, writing = os.pipe()
    holder = os.fork()
    if not holder:
        with locked(tmp_path, "--output"):
            if not os.fork():
                os.close(writing)
                os.read(reading, 1)  # until the test is over
            os._exit(0)  # leaving the lock as a killed process does
    os.close(reading)
    os.waitpid(holder, 0)
    assert names(tmp_path) == [".lock"]
    with locked(tmp_path, "--output"):
        pass
    os.close(writing)


def test_a_lock_that_its_holder_deletes_meanwhile_is_taken_again(tmp_path, monkeypatch):
    """Another process had the file open when its holder let go of it: who locks that file holds nothing."""
    import fcntl

    taken = []

    def flock(file, flags):
        taken.append(file)
        if len(taken) == 1:
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, "--output"):
        assert names(tmp_path) == [".lock"]
    assert len(taken) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        (b"a: \xff", "not YAML"),
        ("a: 2026-13-45", "not YAML"),
        ("[1, 2]: 3", "not YAML"),
        ("[" * 100_000, "not YAML"),
        ("- " * 2000, "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("&a [1, *a]", "Circular reference"),
        # 10^10 values, were they written out.
        (
            "\n".join(f"a{i}: &a{i} [{', '.join(['x' if not i else f'*a{i - 1}'] * 10)}]" for i in range(10)),
            "aliases",
        ),
    ],
)
def test_yaml_that_is_refused(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rf"a\.yaml: .*{message}"):
        read_yaml(path)


def test_yaml_of_plain_values_and_aliases_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &list [1, 2.5, x]\nb: {c: *list}\ne: null\nf: 2026-01-02\n")
    assert read_yaml(path) == {
        "a": [1, 2.5, "x"],
        "b": {"c": [1, 2.5, "x"]},
        "e": None,
        "f": date(2026, 1, 2),
    }
    path.write_text("")
    assert read_yaml(path) is None
