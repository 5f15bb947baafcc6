"""Single facts about `diff`; its laws are in tests/property/test_diff.py."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from routemesh.diff import applied, diff
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    Change,
    Create,
    Delete,
    Dnat,
    Element,
    FdbEntry,
    Hook,
    Item,
    Link,
    Lookup,
    Map,
    Neighbour,
    Netns,
    NodePlan,
    Peer,
    Route,
    Rule,
    Sysctl,
    Table,
    Verdict,
    VerdictLookup,
    Vxlan,
    namespace,
)

ADDRESS = Address("eth0", IPv4Interface("10.0.0.8/24"))
HOOK = Hook("nat", "prerouting", -100)
BY_MARK: Rule = (VerdictLookup(("meta mark",), "services"),)
BALANCE: Rule = (Dnat(Lookup(("meta mark",), "backends")),)


def host(*items: Item) -> NodePlan:
    return NodePlan({HOST: namespace(items)} if items else {})


def veth(name: str, netns: str, link: str, *, mac: str | None = None, master: str | None = None) -> Link:
    return Link(name=name, kind="veth", mac=mac, master=master, peer=Peer(netns, link))


def bridge(name: str = "br0", mtu: int = 1500) -> Link:
    return Link(name=name, kind="bridge", mtu=mtu)


def tunnel(vni: int) -> Link:
    return Link(name="vxlan0", kind="vxlan", vxlan=Vxlan(vni, IPv4Address("192.0.2.1"), 4789))


def balancing(mark: int) -> tuple[Item, ...]:
    """One service in a table: dispatcher, verdict map, chain, backend."""
    return (
        Table("ip"),
        Map("ip", "services", ("mark",), "verdict"),
        Map("ip", "backends", ("mark",), "ip"),
        Chain("ip", f"FWM-{mark}", rules=(BALANCE,)),
        Chain("ip", "nat-prerouting", HOOK, (BY_MARK,)),
        Element("ip", "services", (mark,), Verdict("goto", f"FWM-{mark}")),
        Element("ip", "backends", (mark,), IPv4Address("10.0.0.8")),
    )


def test_nothing_to_do() -> None:
    assert diff(NodePlan(), NodePlan()) == ()
    assert diff(host(bridge()), host(bridge())) == ()


def test_kinds_are_created_in_order_over_all_namespaces() -> None:
    inside = veth("eth0", HOST, "veth0")
    plan = NodePlan(
        {
            HOST: namespace((veth("veth0", "task", "eth0", master="br0"), bridge(), Netns("task"))),
            "task": namespace((Neighbour("eth0", IPv4Address("10.0.0.1"), "02:42:0a:00:00:01"), ADDRESS, inside)),
        }
    )
    kinds = [type(op.item) for op in diff(NodePlan(), plan) if isinstance(op, Create)]
    assert kinds == [Netns, Link, Link, Link, Address, Neighbour]


def test_a_bridge_comes_before_its_ports_and_a_chain_before_those_that_jump_to_it() -> None:
    goto: Rule = (Verdict("goto", "b"),)
    items = (
        bridge("z0"),
        Link(name="a0", kind="veth", master="z0"),
        Table("ip"),
        Chain("ip", "a", HOOK, (goto,)),
        Chain("ip", "b"),
    )
    names = [op.item.name for op in diff(NodePlan(), host(*reversed(items))) if isinstance(op.item, Link | Chain)]  # type: ignore[union-attr]
    assert names == ["z0", "a0", "b", "a"]
    names = [op.item.name for op in diff(host(*items), host(Table("ip"))) if isinstance(op.item, Link | Chain)]  # type: ignore[union-attr]
    assert names == ["a", "b", "a0", "z0"]


def test_another_value_is_a_change() -> None:
    old, new = bridge(mtu=1500), bridge(mtu=9000)
    assert diff(host(old), host(new)) == (Change(HOST, old, new),)


def test_a_link_without_a_wanted_mac_keeps_its_own() -> None:
    has = Link(name="br0", kind="bridge", mac="02:42:00:00:00:01")
    assert diff(host(has), host(bridge())) == ()
    ops = diff(host(has), host(bridge(mtu=9000)))
    assert applied(host(has), ops) == host(Link(name="br0", kind="bridge", mtu=9000, mac="02:42:00:00:00:01"))


def test_a_wanted_mac_is_set() -> None:
    wanted = Link(name="br0", kind="bridge", mac="02:42:00:00:00:01")
    assert diff(host(bridge()), host(wanted)) == (Change(HOST, bridge(), wanted),)


def test_a_namespace_goes_in_one_operation_and_takes_its_veths_along() -> None:
    port = veth("veth0", "task", "eth0")
    had = NodePlan({HOST: namespace((Netns("task"), port)), "task": namespace((veth("eth0", HOST, "veth0"), ADDRESS))})
    assert diff(had, NodePlan()) == (Delete(HOST, port), Delete(HOST, Netns("task")))
    assert applied(had, [Delete(HOST, Netns("task"))]) == NodePlan()


def test_what_is_on_a_link_goes_with_it() -> None:
    on_it = (
        ADDRESS,
        Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth0"),
        Neighbour("eth0", IPv4Address("10.0.0.1"), "02:42:0a:00:00:01"),
        FdbEntry("eth0", "02:42:0a:00:00:08"),
        Sysctl("net/ipv4/conf/eth0/rp_filter", "0"),
    )
    link = bridge("eth0")
    assert diff(host(link, *on_it), NodePlan()) == (Delete(HOST, link),)
    assert applied(host(link, *on_it), [Delete(HOST, link)]) == NodePlan()


def test_a_table_goes_with_all_its_contents() -> None:
    assert diff(host(*balancing(256)), NodePlan()) == (Delete(HOST, Table("ip")),)
    assert applied(host(*balancing(256)), [Delete(HOST, Table("ip"))]) == NodePlan()


def test_a_map_goes_with_its_elements() -> None:
    table, ports = Table("ip"), Map("ip", "ports", ("proto", "port"), "port")
    had = host(table, ports, Element("ip", "ports", ("tcp", 8080), 80))
    assert diff(had, host(table)) == (Delete(HOST, ports),)


def test_a_verdict_is_withdrawn_before_its_chain_even_when_the_map_goes_too() -> None:
    had = balancing(256)
    table, _, _, balance, dispatch, verdict, _ = had
    deleted = [op.item for op in diff(host(*had), host(table)) if isinstance(op, Delete)]
    assert deleted.index(verdict) < deleted.index(balance)
    assert dispatch in deleted


def test_one_service_more_touches_nothing_else() -> None:
    two = (*balancing(256), *balancing(257))
    ops = diff(host(*balancing(256)), host(*two))
    assert all(isinstance(op, Create) for op in ops)
    assert {op.item for op in ops if isinstance(op, Create)} == set(two) - set(balancing(256))


def test_a_map_of_another_type_is_made_anew_with_its_elements_and_the_rules_that_use_it() -> None:
    table = Table("ip")
    mark: Rule = (Assign("meta mark", Lookup(("th dport",), "marks")),)
    marker = Chain("ip", "mangle", HOOK, (mark,))
    old_map, new_map = Map("ip", "marks", ("port",), "mark"), Map("ip", "marks", ("proto", "port"), "mark")
    old_element, new_element = Element("ip", "marks", (80,), 256), Element("ip", "marks", ("tcp", 80), 256)
    assert diff(host(table, marker, old_map, old_element), host(table, marker, new_map, new_element)) == (
        Delete(HOST, marker),
        Delete(HOST, old_map),
        Create(HOST, new_map),
        Create(HOST, marker),
        Create(HOST, new_element),
    )


def test_a_tunnel_with_another_number_is_made_anew_with_what_is_on_it() -> None:
    entry = FdbEntry("vxlan0", "02:42:0a:00:00:03", IPv4Address("192.0.2.2"))
    assert diff(host(tunnel(4096), entry), host(tunnel(4097), entry)) == (
        Delete(HOST, tunnel(4096)),
        Create(HOST, tunnel(4097)),
        Create(HOST, entry),
    )


def test_a_base_chain_at_another_hook_is_made_anew() -> None:
    table, old, new = Table("ip"), Chain("ip", "a", HOOK), Chain("ip", "a", Hook("nat", "output", -100))
    assert diff(host(table, old), host(table, new)) == (Delete(HOST, old), Create(HOST, new))


def test_a_chain_on_a_device_goes_before_its_map_and_both_before_the_device() -> None:
    table, macs = Table("netdev"), Map("netdev", "macs", ("mark",), "mac")
    steer: Rule = (Assign("ether daddr", Lookup(("meta mark",), "macs")),)
    egress = Chain("netdev", "egress", Hook("filter", "egress", 0, "eth0"), (steer,))
    had = host(bridge("eth0"), table, macs, egress)
    assert diff(had, host(table)) == (Delete(HOST, egress), Delete(HOST, macs), Delete(HOST, bridge("eth0")))
    assert applied(had, [Delete(HOST, bridge("eth0"))]) == host(table, macs)


def test_a_rule_is_changed_after_what_it_refers_to_was_made() -> None:
    table, counting = Table("ip"), Chain("ip", "a", HOOK)
    jumping = Chain("ip", "a", HOOK, ((Verdict("goto", "b"),),))
    assert diff(host(table, counting), host(table, jumping, Chain("ip", "b"))) == (
        Create(HOST, Chain("ip", "b")),
        Change(HOST, counting, jumping),
    )


def test_the_ports_of_a_bridge_that_is_made_anew_are_made_anew_too() -> None:
    port = Link(name="a0", kind="vxlan", master="br0")
    assert diff(host(Link(name="br0", kind="vxlan"), port), host(bridge(), port)) == (
        Delete(HOST, port),
        Delete(HOST, Link(name="br0", kind="vxlan")),
        Create(HOST, bridge()),
        Create(HOST, port),
    )
