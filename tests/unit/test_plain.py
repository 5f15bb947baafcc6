"""Values of nodeplan and snapshot survive the way through JSON."""

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routemesh.codec.plain import plain, restored
from routemesh.errors import RoutemeshError
from routemesh.model import Protocol
from routemesh.nodeplan import (
    Address,
    Chain,
    Element,
    FdbEntry,
    Item,
    Link,
    Lookup,
    Numgen,
    Redirect,
    Route,
    Statement,
    Verdict,
    XtRule,
)
from routemesh.snapshot import ClusterSnapshot, ConntrackEntry, NamespaceSnapshot, NodeSnapshot, Socket


def there_and_back(value: Any, *, compact: bool) -> Any:
    return restored(type(value), json.loads(json.dumps(plain(value, compact=compact))))


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("kind", [*get_args(Item), ConntrackEntry, Socket, *get_args(Statement)])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_written_is_read_again(kind: type, compact: bool, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    assert there_and_back(value, compact=compact) == value


def test_a_cluster_is_read_again() -> None:
    own = NamespaceSnapshot(
        path="", items=(Link(name="lo", kind="loopback"), FdbEntry("br0", "02:00:00:00:00:01", kind="learned"))
    )
    node = NodeSnapshot(
        name="node1",
        kind="swarm",
        engine="ipvs",
        addresses=(IPv4Address("192.0.2.1"),),
        device="eth0",
        namespaces={"": own, "ingress_sbox": NamespaceSnapshot(path="/x", sockets=())},
    )
    cluster = ClusterSnapshot(nodes={"node1": node})
    assert there_and_back(cluster, compact=True) == cluster


def test_a_daemon_of_another_version_is_understood() -> None:
    """In a rolling upgrade: what an older one does not tell is not known; what a newer one tells besides is passed over."""
    server = Socket(protocol=Protocol.TCP, address=IPv4Address("10.0.0.6"), port=80)
    space = NamespaceSnapshot(path="", sockets=(server,))
    node = NodeSnapshot(name="n", kind="routemesh", engine="nftables", addresses=(), device="", namespaces={"": space})
    told = plain(node, compact=True)
    (socket,) = told["namespaces"][""]["sockets"]
    assert not {"queued", "backlog", "stopped"} & socket.keys() and "only_ipv6" not in told["namespaces"][""]
    assert restored(NodeSnapshot, json.loads(json.dumps(told))) == node
    socket["colour"] = {"item": "Colour", "hue": 7}
    told["namespaces"][""]["moods"] = ["glad"]
    told["tomorrow"] = None
    assert restored(NodeSnapshot, json.loads(json.dumps(told))) == node
    with pytest.raises(RoutemeshError, match="not understood"):
        restored(Address, {"item": "Address", "link": "eth0", "address": "10.0.0.1/24", "colour": "red"})


def test_a_plan_shows_nothing_that_only_others_have() -> None:
    route = Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth0")
    assert plain(route) == {
        "item": "Route", "destination": "0.0.0.0/0", "via": "10.0.0.1", "link": "eth0", "table": 254, "source": None,
        "kind": "unicast", "protocol": 82,
    }  # fmt: skip
    assert plain(Chain("ip", "c", None, ((Redirect(Lookup(("meta mark", Numgen(2)), "m")),),), "drop"))["policy"] == "drop"


@pytest.mark.parametrize(
    "raw", [{"item": "Nonsense"}, {"item": "Address", "link": "x"}, {"item": "Address", "address": "x"}, {}, None]
)
def test_what_spells_nothing_is_refused(raw: object) -> None:
    with pytest.raises(RoutemeshError, match="not understood"):
        restored(Address, raw)


def test_every_noun_is_a_struct() -> None:
    assert all(issubclass(kind, msgspec.Struct) for kind in (*get_args(Item), Element, Verdict, XtRule))
