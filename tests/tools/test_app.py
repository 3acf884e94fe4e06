"""Who may open the page."""

import pytest

from bccd_d2.errors import InputError
from tools.app import USER, login


def test_a_page_for_other_machines_needs_a_password_or_the_word_that_it_needs_none():
    assert login("127.0.0.1", None, False) is None
    assert login("0.0.0.0", None, True) is None
    assert login("0.0.0.0", "secret", False) == (USER, "secret")
    for host, password, no_password in (("0.0.0.0", None, False), ("0.0.0.0", "", False), ("::", "a", True)):
        with pytest.raises(InputError, match="--no-password"):
            login(host, password, no_password)
