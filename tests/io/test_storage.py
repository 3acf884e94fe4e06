import pytest

from bccd_d2.errors import InputError
from bccd_d2.io.storage import Storage, fingerprint, local_copy


@pytest.fixture(params=["folder", "file://", "memory://"])
def storage(request, tmp_path, bucket):
    return Storage(
        {
            "folder": str(tmp_path / "my out::put"),
            "file://": f"file://{tmp_path}/out",
            "memory://": "memory://bucket/out",
        }[request.param]
    )


def publish(storage, name, content):
    with storage.staging() as folder:
        (folder / "staged").write_bytes(content)
        storage.publish(folder / "staged", name)
        assert not (folder / "staged").exists() or storage.local_root is None
    assert not folder.exists()


def test_files_are_published_read_found_and_deleted(storage):
    assert storage.read("deep/a.txt") is None
    assert storage.find("deep") == []
    publish(storage, "deep/a.txt", b"old")
    publish(storage, "deep/a.txt", b"new")
    publish(storage, "deep/er/b.txt", b"b")
    assert storage.read("deep/a.txt") == b"new"
    assert storage.exists("deep/a.txt") and not storage.exists("deep")
    assert storage.find("deep") == ["deep/a.txt", "deep/er/b.txt"]
    storage.delete("deep/a.txt")
    storage.delete("deep/a.txt")
    assert storage.find("deep") == ["deep/er/b.txt"]


def test_staging_ends_with_what_is_in_it(storage):
    with pytest.raises(RuntimeError), storage.staging() as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert not folder.exists()
    if storage.local_root is not None:
        # What a killed process leaves lies apart, on the disk it would be moved on.
        assert folder.is_relative_to(storage.local_root)
        (storage.local_root / ".partial" / "left").mkdir()
        storage.clear_staging()
        assert list(storage.local_root.iterdir()) == []


def test_a_file_is_known_by_size_and_time(tmp_path, bucket):
    path = tmp_path / "a"
    path.write_bytes(b"123")
    before = fingerprint(path)
    assert before.startswith("3 bytes of 20")
    path.write_bytes(b"1234")
    assert fingerprint(path) != before
    bucket.pipe_file("/a", b"12345")
    assert fingerprint("memory://a").startswith("5 bytes of 20")
    with pytest.raises(FileNotFoundError):
        fingerprint(tmp_path / "absent")


def test_a_remote_file_is_copied_and_called_by_its_address(tmp_path, bucket):
    bucket.pipe_file("/in/a.png", b"xyz")
    with local_copy("memory://in/a.png") as copy:
        assert (copy.name, copy.read_bytes()) == ("a.png", b"xyz")
    assert not copy.exists()
    with (
        pytest.raises(InputError, match=r"^memory://in/a\.png: broken$"),
        local_copy("memory://in/a.png") as copy,
    ):
        raise InputError(f"{copy}: broken")
    path = tmp_path / "b.png"
    with local_copy(path) as same, local_copy(f"file://{path}") as also:
        assert same == also == path


def test_a_folder_takes_one_batch_at_a_time(storage):
    with storage.locked():
        if storage.local_root is None:  # an object store knows no such thing
            return
        with pytest.raises(InputError, match=r"^--output: .* is in use by process"), storage.locked():
            pass
    assert not storage.local_root.exists()
