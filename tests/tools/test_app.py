"""Who may open the page, and what it says at start."""

import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.app.sessions import Limits
from tools.app import announcement, main, parse, secret_of


def secret(*arguments):
    return secret_of(parse([*arguments]))


def test_a_page_for_other_machines_needs_a_password_or_the_word_that_it_needs_none():
    assert secret() is None
    assert secret("--host", "0.0.0.0", "--no-password") is None
    assert secret("--host", "0.0.0.0", "--password", "secret") == "secret"
    assert secret("--token", "abc") == "abc"
    assert len({secret("--host", "::", "--token") for _ in range(3)}) == 3
    for arguments in (["--host", "0.0.0.0"], ["--host", "192.168.0.5"], ["--host", "::"]):
        with pytest.raises(InputError, match="--no-password"):
            secret(*arguments)
    with pytest.raises(InputError, match="expected a text"):
        secret("--password", "")
    with pytest.raises(SystemExit):
        secret("--password", "a", "--no-password")


@pytest.mark.parametrize(
    ("arguments", "secret", "words"),
    [
        ([], None, ["http://127.0.0.1:80/\n", "for this machine only", "50 MB"]),
        (["--host", "0.0.0.0", "--password", "a"], "a", ["know the password", "not encrypted"]),
        (["--host", "::", "--token"], "abc", ["http://[::]:80/?token=abc", "know the token"]),
        (["--host", "0.0.0.0", "--no-password"], None, ["WARNING: everybody"]),
    ],
)
def test_what_it_says_at_start(arguments, secret, words):
    said = announcement(parse(arguments), 80, secret, Limits())
    assert all(word in said for word in words)


def test_help_calls_the_command_as_it_is_called(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/venv/bin/bccd-app"])
    with pytest.raises(SystemExit):
        parse(["--help"])
    help_text = capsys.readouterr().out
    assert "  bccd-app --types " in help_text and "python" not in help_text


def test_bad_limits_are_said_before_the_model_is_read():
    with pytest.raises(InputError, match="megabytes: expected a number above 0, found 0"):
        main(["--max-mb", "0"])
