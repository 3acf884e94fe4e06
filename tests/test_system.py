import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bccd_d2 import system
from bccd_d2.files import shipped_folder

PACKAGE = Path(system.__file__).parent
MODULES = {"signal", "fcntl", "msvcrt", "resource", "pwd", "grp", "pty", "termios", "winreg"}
OF_OS = {
    *("chmod", "fork", "getpgid", "getuid", "kill", "killpg", "link", "mkfifo", "name", "nice"),
    *("setsid", "symlink"),
}
OF_PATHS = {"chmod", "hardlink_to", "lchmod", "symlink_to"}


def system_calls(code: str) -> list[str]:
    """What of one operating system alone a module imports, calls or names."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            names = OF_OS | {"register_at_fork"} if owner == "os" else OF_PATHS
            if node.attr in names or (owner, node.attr) in {("sys", "platform"), ("platform", "system")}:
                found.append(f"{owner}.{node.attr}")
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("/proc/", "/dev/", "/tmp")):
            found.append(str(node.value))
    return found


def test_what_belongs_to_one_system_is_in_one_module():
    found = {
        path: system_calls(path.read_text(encoding="utf-8"))
        for folder in (PACKAGE, shipped_folder("tools"))
        for path in folder.rglob("*.py")
    }
    assert {"signal", "fcntl", "msvcrt", "os.kill", "os.register_at_fork"} <= set(
        found.pop(PACKAGE / "system.py")
    )
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os, fcntl", ["fcntl"]),
        ("from signal import SIGTERM", ["signal"]),
        ("def f(path):\n path.chmod(0o644)", ["path.chmod"]),
        ("os.fork()", ["os.fork"]),
        ("open('/proc/self/statm')", ["/proc/self/statm"]),
        ("os.path.join('a', 'b'); text.replace('kill', '')", []),
    ],
)
def test_the_search_finds_them(code, found):
    assert system_calls(code) == found


def test_a_file_that_is_open_elsewhere_on_windows_is_replaced_when_it_is_free(tmp_path, monkeypatch):
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_text("new")
    target.write_text("old")
    replace, refused = Path.replace, []

    def in_use(path, to):
        if len(refused) < 2:
            refused.append(path)
            raise PermissionError(13, "in use", str(to))
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", in_use)
    with pytest.raises(PermissionError):
        system.move_into_place(source, target)
    monkeypatch.setattr(system, "WINDOWS", True)
    system.move_into_place(source, target)
    assert target.read_text() == "new"
    assert len(refused) == 2


def test_windows_hands_on_what_its_console_has_not_sent(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    for windows in (True, False):
        monkeypatch.setattr(system, "WINDOWS", windows)
        for number in system.STOP_SIGNALS:
            system.pass_on(number, 7)
    assert sent == [(7, signal.SIGTERM), (7, signal.SIGINT), (7, signal.SIGTERM)]


def test_a_signal_is_delivered_when_the_block_ends():
    received = []
    before = system.receive_stop_signals(lambda number, _frame: received.append(number))
    try:
        with system.signals_held_back():
            system.raise_signal(signal.SIGINT)
            assert received == []
        assert received == [signal.SIGINT]
    finally:
        system.restore_signals(before)


def test_a_console_without_the_letters_of_a_name_ends_no_command():
    code = "from bccd_d2.commands import run_command; run_command(lambda: print('Blutausstrich \\N{MICRO SIGN}m'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "Blutausstrich ?m\n"), done.stderr
