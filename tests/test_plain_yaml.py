import pytest

from bccd_d2.errors import InputError
from bccd_d2.plain_yaml import read_yaml


def write(folder, content):
    path = folder / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_plain_values_and_aliases_are_read(tmp_path):
    path = write(tmp_path, "a: &list [1, 2.5, x]\nb: {c: *list, d: *list}\ne: null\n")
    assert read_yaml(path) == {"a": [1, 2.5, "x"], "b": {"c": [1, 2.5, "x"], "d": [1, 2.5, "x"]}, "e": None}
    assert read_yaml(write(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        (b"a: \xff", "not YAML"),
        ("a: 2026-13-45", "not YAML"),
        ("[1, 2]: 3", "not YAML"),
        ("[" * 100_000, r"not YAML \(more than 200 brackets"),
        ("- " * 2000, "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("&a [1, *a]", "an alias stands for what it is part of"),
    ],
)
def test_what_is_none_is_named(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"a\.yaml: .*{message}"):
        read_yaml(write(tmp_path, content))


def test_aliases_do_not_multiply(tmp_path):
    """Ten lines of ten aliases each: 10^10 values, were they written out."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]"
        for before, name in zip("abcdefghi", "bcdefghij")
    ]
    with pytest.raises(InputError, match="its aliases come to more than 100000 values"):
        read_yaml(write(tmp_path, "\n".join(lines)))
    assert len(read_yaml(write(tmp_path, "\n".join(lines[:4])))["d"]) == 10
