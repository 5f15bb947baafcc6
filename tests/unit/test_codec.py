"""Objects survive the way to JSON and back; what is not one of ours is refused."""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.model import Node, NodeId, RestartPolicy, Role, Service, ServiceId, ServiceSpec
from routemesh.store.changes import KINDS, Object
from routemesh.store.codec import CodecError, decode, encode
from routemesh.values import replace

_STORABLE: dict[Any, st.SearchStrategy[Any]] = {
    float: st.floats(allow_nan=False, allow_infinity=False),
    Mapping[str, str]: st.dictionaries(st.text(), st.text(), max_size=3),
    Mapping[str, int]: st.dictionaries(st.text(), st.integers(0, 65535), max_size=3),
    Mapping[int, int]: st.dictionaries(st.integers(0, 65535), st.integers(0, 65535), max_size=3),
    Mapping[Role, str]: st.dictionaries(st.sampled_from(Role), st.text(), max_size=2),
    tuple[str, ...]: st.lists(st.text(), max_size=3).map(tuple),
}


_OTHER_JSON: st.SearchStrategy[object] = st.recursive(st.none() | st.integers() | st.text(), st.lists)


def objects(model: type[Any]) -> st.SearchStrategy[Any]:
    """Any object of a class of the model, within what can be stored."""
    hints = get_type_hints(model)
    return st.builds(model, **{name: _values(hints[name]) for name in model.__struct_fields__})


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _STORABLE:
        return _STORABLE[hint]
    for nested in (hint, *getattr(hint, "__args__", ())):
        if hasattr(nested, "__struct_fields__"):
            return _around(hint, objects(nested))
    return st.from_type(hint)


def _around(hint: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Strategies for X, X | None and tuple[X, ...] from one for X."""
    if getattr(hint, "__origin__", None) is tuple:
        return st.lists(values, max_size=3).map(tuple)
    return values if hasattr(hint, "__struct_fields__") else st.none() | values


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_decode_undoes_encode(kind: str, data: st.DataObject) -> None:
    value = data.draw(objects(KINDS[kind]))
    assert decode(kind, encode(kind, value)) == value


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary() | _OTHER_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_a_codec_error(kind: str, body: bytes) -> None:
    with pytest.raises(CodecError):
        decode(kind, body)


def node() -> Node:
    return Node(id=NodeId("n"), name="node1", address=IPv4Address("192.0.2.1"))


def test_what_is_written_is_readable() -> None:
    written = json.loads(encode("node", node()))
    assert (written["address"], written["availability"], written["attachments"]) == ("192.0.2.1", "active", [])


def test_unknown_fields_are_dropped_and_missing_ones_get_their_default() -> None:
    written = json.loads(encode("node", node()))
    del written["mtu_bytes"]
    assert decode("node", json.dumps({**written, "added_later": {"x": 1}}).encode()) == node()


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("address", "192.0.2.999", "$.address"),
        ("address", 3221225985, "$.address"),
        ("role", "king", "$.role"),
        ("mtu_bytes", "1500", "$.mtu_bytes"),
        ("labels", {"zone": 1}, "$.labels"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, where: str) -> None:
    body = json.dumps({**json.loads(encode("node", node())), field: value}).encode()
    with pytest.raises(CodecError) as refused:
        decode("node", body)
    assert where in str(refused.value)


def service(**changes: Any) -> Object:
    spec = replace(ServiceSpec(name="web"), **changes)
    return Service(id=ServiceId("s"), spec=spec, version=1, created_at=1.0, updated_at=1.0)


@pytest.mark.parametrize(
    "unreadable",
    [
        service(restart=RestartPolicy(delay_s=float("inf"))),
        service(stop_grace_s=float("nan")),
        service(environment=("NAME=\udcff",)),
        service(workdir=object()),
    ],
)
def test_what_could_not_be_read_again_is_not_written(unreadable: Object) -> None:
    with pytest.raises(CodecError):
        encode("service", unreadable)
