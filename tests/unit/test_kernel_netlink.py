"""Netlink's wire format: what is written can be read, and nothing that is read makes the reader fall over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.kernel import netlink


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40)))
def test_attributes_round_trip(wanted: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in wanted.items())
    assert netlink.parse(data) == wanted
    assert len(data) % 4 == 0


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")), st.integers(0, 0xFFFFFFFF), st.integers(0, 255))
def test_nested_values_round_trip(name: str, number: int, small: int) -> None:
    data = netlink.nest(1, netlink.text(2, name), netlink.u32(3, number), netlink.u8(4, small))
    inside = netlink.parse(netlink.parse(data)[1])
    assert (netlink.as_text(inside[2]), netlink.as_u32(inside[3]), inside[4]) == (name, number, bytes([small]))


@given(st.binary(max_size=200))
def test_reads_any_bytes(data: bytes) -> None:
    for reply in netlink.replies(data):
        netlink.parse(reply.body)


def test_writes_a_mac() -> None:
    assert netlink.parse(netlink.mac(1, "02:42:0A:00:00:07")) == {1: bytes((2, 0x42, 10, 0, 0, 7))}


@pytest.mark.parametrize(
    "nonsense", ["", "02:42", "02:42:0a:00:00:07:08", "02:42:0a:00:00:zz", "2:42:0a:00:00:07", "02420a000007"]
)
def test_refuses_what_is_no_mac(nonsense: str) -> None:
    with pytest.raises(OSError, match="is not a MAC address"):
        netlink.mac(1, nonsense)
