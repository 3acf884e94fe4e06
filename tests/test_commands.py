import pytest

from bccd_d2.commands import as_called, run_command
from bccd_d2.errors import InputError


def raising(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raising(InputError("x.png: empty")), 1, "error: x.png: empty\n"),
        (raising(PermissionError(13, "denied", "out")), 1, "error: [Errno 13] denied: 'out'\n"),
        (raising(KeyboardInterrupt()), 130, "interrupted; finished files are intact\n"),
    ],
)
def test_how_commands_end(main, status, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == message


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))


def test_tools_are_named_as_they_are_called(monkeypatch):
    text = "python tools/train_net.py --config-file a.yaml; see tools/fit_stain.py"
    monkeypatch.setattr("sys.argv", ["tools/predict.py"])
    assert as_called(text) == text
    monkeypatch.setattr("sys.argv", ["/venv/bin/bccd-predict"])
    assert as_called(text) == "bccd-train --config-file a.yaml; see python -m bccd_d2.tools.fit_stain"
