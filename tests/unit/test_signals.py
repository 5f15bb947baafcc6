"""One grammar of signals: every form that docker takes, and one name for each."""

import signal

import pytest

from routemesh.errors import UserError
from routemesh.signals import full_name, number


@pytest.mark.parametrize(
    ("text", "meant", "name"),
    [
        ("SIGTERM", signal.SIGTERM, "SIGTERM"),
        ("TERM", signal.SIGTERM, "SIGTERM"),
        ("sigterm", signal.SIGTERM, "SIGTERM"),
        ("15", signal.SIGTERM, "SIGTERM"),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        ("rtmin+3", signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        (f"{signal.SIGRTMIN + 3:d}", signal.SIGRTMIN + 3, "SIGRTMIN+3"),
        ("RTMAX-1", signal.SIGRTMAX - 1, f"SIGRTMIN+{signal.SIGRTMAX - 1 - signal.SIGRTMIN}"),
        ("RTMIN+0", signal.SIGRTMIN, "SIGRTMIN"),
        ("SIGRTMAX", signal.SIGRTMAX, "SIGRTMAX"),
    ],
)
def test_signals_have_several_forms_and_one_name(text: str, meant: int, name: str) -> None:
    assert number(text) == meant
    assert full_name(text) == name
    assert number(name) == meant and full_name(name) == name


def test_every_signal_of_this_system_has_a_name() -> None:
    for each in signal.valid_signals():
        assert number(full_name(str(int(each)))) == each


@pytest.mark.parametrize(
    "text", ["", "0", "32", "65", "-1", "SIG", "SIGSIGTERM", "RTMIN+99", "RTMAX-99", "RTMAX-31", "1.5", "\uff11\uff15"]
)
def test_what_is_no_signal_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="is unknown; use one such as SIGTERM"):
        number(text)
