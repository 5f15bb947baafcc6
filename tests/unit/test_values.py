"""A change is a new value, whatever kind of class it is of; and a secret is not told."""

from dataclasses import dataclass

import pytest

from routemesh.model import Secret, SecretId, State
from routemesh.nodeplan import Link
from routemesh.values import differing, replace


@dataclass(frozen=True, slots=True)
class Own:
    """What a module keeps for itself."""

    name: int
    two: int = 2


def test_a_changed_value_is_a_new_one() -> None:
    link = Link(name="br0", kind="bridge", mtu=1500)
    smaller = replace(link, mtu=1400)
    assert (link.mtu, smaller) == (1500, Link(name="br0", kind="bridge", mtu=1400))
    assert replace(Own(1), name=3) == Own(3, 2)
    assert differing(link, smaller) == ("mtu",)


@pytest.mark.parametrize("value", [Link(name="br0", kind="bridge", mtu=1500), Own(1)])
def test_nobody_changes_a_value_itself(value: object) -> None:
    with pytest.raises(AttributeError):
        value.name = "other"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        replace(value, colour="red")  # type: ignore[type-var]


def test_a_secret_does_not_show_what_it_holds() -> None:
    secret = Secret(id=SecretId("s"), name="tls", created_at=0, data=b"KEY")
    assert "tls" in repr(secret)
    assert "KEY" not in repr(State(secrets={secret.id: secret}))
