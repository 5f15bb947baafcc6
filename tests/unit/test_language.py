"""nft text and command lines: exact where people read them, and never more than what was meant."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.language import canonical, command, ruleset, transaction
from routemesh.language.nft import rule_text
from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    Change,
    ClampMss,
    Counter,
    Create,
    Delete,
    Dnat,
    Element,
    FdbEntry,
    Field,
    Hook,
    InSet,
    Item,
    Jhash,
    Learn,
    Link,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Neighbour,
    Netns,
    Numgen,
    Op,
    Peer,
    Redirect,
    Reject,
    Route,
    RoutingRule,
    Rule,
    SetTimeouts,
    Snat,
    Statement,
    Sysctl,
    Table,
    Unknown,
    Verdict,
    VerdictLookup,
    Vxlan,
)

PORT: tuple[Field, Field] = ("meta l4proto", "th dport")
TCP = Match("meta l4proto", "tcp")
TEXTS: tuple[tuple[Statement, str], ...] = (
    (Match("iifname", "eth0"), 'iifname "eth0"'),
    (Match("oifname", "veth*", negate=True), 'oifname != "veth*"'),
    (Match("ip saddr", "10.0.0.0/24"), "ip saddr 10.0.0.0/24"),
    (Match("ip daddr", "10.0.0.1/32"), "ip daddr 10.0.0.1"),
    (Match("ct state", "new,established"), "ct state established,new"),
    (Match("fib daddr type", "local"), "fib daddr type local"),
    (Match("th dport", "80"), "th dport 80"),
    (Match("meta l4proto", "17"), "meta l4proto udp"),
    (Match("meta l4proto", "99"), "meta l4proto 99"),
    (Match("ct mark", "5", negate=True), "ct mark != 0x00000005"),
    (Match("ether saddr", "02:42:0A:00:00:02"), "ether saddr 02:42:0a:00:00:02"),
    (Match("ct direction", "reply"), "ct direction reply"),
    (Match("tcp flags", "syn"), "tcp flags syn"),
    (Match("tcp flags", "syn / syn"), "tcp flags syn"),
    (Match("tcp flags", "syn/rst,syn"), "tcp flags syn / syn,rst"),
    (MarkMatch("ct mark", 0x0A000000, 0xFF000000), "ct mark & 0xff000000 == 0x0a000000"),
    (MarkMatch("meta mark", 0x100, 0xFFFFFFFF), "meta mark 0x00000100"),
    (InSet(PORT, "published"), "meta l4proto . th dport @published"),
    (Assign("meta mark", Lookup(PORT, "marks")), "meta mark set meta l4proto . th dport map @marks"),
    (Assign("meta mark", "ct mark"), "meta mark set ct mark"),
    (Assign("ct mark", 258), "ct mark set 0x00000102"),
    (ClampMss(1410), "tcp option maxseg size set 1410"),
    (Counter(), "counter"),
    (SetTimeouts("mesh-tcp"), 'ct timeout set "mesh-tcp"'),
    (Dnat(IPv4Address("172.18.0.2")), "dnat to 172.18.0.2"),
    (Dnat(Lookup(("meta mark", Numgen(3)), "backends")), "dnat to meta mark . numgen inc mod 3 map @backends"),
    (Dnat(Lookup((Numgen(3, "random"),), "b")), "dnat to numgen random mod 3 map @b"),
    (Dnat(Lookup((Jhash(field="ip saddr", modulus=7, seed=256),), "b")), "dnat to jhash ip saddr mod 7 seed 0x100 map @b"),
    (
        Learn(map="clients", key=("ip saddr", "meta mark"), value="ct mark", timeout_s=10_800),
        "update @clients { ip saddr . meta mark timeout 10800s : ct mark }",
    ),
    (Snat(IPv4Address("10.0.0.2")), "snat to 10.0.0.2"),
    (Masquerade(), "masquerade"),
    (Redirect(Lookup(PORT, "ports")), "meta l4proto { tcp, udp } redirect to :meta l4proto . th dport map @ports"),
    (Reject("tcp reset"), "reject with tcp reset"),
    (Reject("icmp port-unreachable"), "reject with icmp port-unreachable"),
    (Verdict("accept"), "accept"),
    (Verdict("goto", "DOCKER-INGRESS"), "goto DOCKER-INGRESS"),
    (VerdictLookup(("meta mark",), "services"), "meta mark vmap @services"),
)


def creations(items: Iterable[Item]) -> list[Op]:
    return [Create(HOST, item) for item in items]


# --- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("statement", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_statements(statement: Statement, text: str) -> None:
    assert rule_text((statement,)) == text


def test_a_redirect_needs_no_protocol_where_the_rule_says_it() -> None:
    assert rule_text((TCP, Redirect(Lookup(PORT, "ports")))) == "meta l4proto tcp redirect to :meta l4proto . th dport map @ports"


@pytest.mark.parametrize(
    "statement",
    [
        Unknown('{"log": null}'),
        Match("iifname", 'eth0" accept #'),
        Match("iifname", "a-name-of-16-char"),
        Match("ip saddr", "10.0.0.1/24"),
        Match("ip saddr", "10.0.0.1 accept"),
        Match("th dport", "65536"),
        Match("th dport", "80, 81"),
        Match("meta l4proto", "tcp udp"),
        Match("ct state", "new accept"),
        Match("ct direction", "both"),
        Match("tcp flags", "syn;"),
        Match("fib daddr type", "local accept"),
        Match("ether saddr", "02:42:0a:00:00"),
        MarkMatch("meta mark", 1 << 32, 1),
        InSet(PORT, "a b"),
        InSet(("meta mark accept",), "s"),  # type: ignore[arg-type]
        Verdict("goto", ""),
        Verdict("goto", "a;b"),
        Dnat("10.0.0.1 accept"),  # type: ignore[arg-type]
        Reject("icmp; accept"),  # type: ignore[arg-type]
        ClampMss(-1),
    ],
    ids=repr,
)
def test_what_is_no_value_never_becomes_syntax(statement: Statement) -> None:
    with pytest.raises(ValueError):
        rule_text((statement,))


@given(st.text(max_size=20))
def test_any_name_is_either_refused_or_one_word(text: str) -> None:
    for item in (Chain("ip", text), Map("ip", text, ("mark",)), Element("ip", text, (1,))):
        try:
            lines = transaction([Create(HOST, item)]).splitlines()
        except ValueError:
            continue
        assert all(text in line.split() for line in lines)


# --- canonical form ----------------------------------------------------------------------------------------------

DROP = Verdict("drop")
CANONICAL: tuple[tuple[Rule, Rule], ...] = (
    ((TCP, Match("th dport", "80"), DROP), (TCP, Match("th dport", "80"), DROP)),
    (
        (TCP, Match("ip saddr", "10.0.0.1"), Match("th dport", "80")),
        (Match("ip saddr", "10.0.0.1"), TCP, Match("th dport", "80")),
    ),
    ((TCP, Counter(), Match("th dport", "80")), (TCP, Counter(), Match("th dport", "80"))),
    ((TCP, DROP), (TCP, DROP)),
    ((TCP, Match("tcp flags", "syn"), DROP), (Match("tcp flags", "syn"), DROP)),
    ((Match("tcp flags", "syn"), TCP, Match("th dport", "80")), (Match("tcp flags", "syn"), Match("th dport", "80"))),
    ((Reject("tcp reset"),), (TCP, Reject("tcp reset"))),
    ((TCP, Match("iifname", "a"), InSet(PORT, "s"), DROP), (Match("iifname", "a"), TCP, InSet(PORT, "s"), DROP)),
    ((TCP, Match("iifname", "a"), Redirect(Lookup(PORT, "s"))), (Match("iifname", "a"), TCP, Redirect(Lookup(PORT, "s")))),
    ((Match("meta l4proto", "tcp", negate=True), Match("th dport", "80")),) * 2,
    ((Match("meta mark", "256"),), (MarkMatch("meta mark", 256, 0xFFFFFFFF),)),
    ((Match("ct state", "new,established"),), (Match("ct state", "established,new"),)),
    ((Match("ip saddr", "10.0.0.1/32"),), (Match("ip saddr", "10.0.0.1"),)),
)


@pytest.mark.parametrize(("rule", "expected"), CANONICAL)
def test_canonical(rule: Rule, expected: Rule) -> None:
    assert canonical(rule) == expected


statements = st.sampled_from([*(statement for statement, _ in TEXTS), TCP, Match("meta l4proto", "tcp", negate=True)])


def demands_one_protocol(rule: Rule) -> bool:
    return sum(isinstance(part, Match) and part.field == "meta l4proto" and not part.negate for part in rule) <= 1


@given(st.lists(statements, max_size=6).map(tuple).filter(demands_one_protocol))
def test_canonical_once_is_enough(rule: Rule) -> None:
    assert canonical(canonical(rule)) == canonical(rule)


# --- rulesets ----------------------------------------------------------------------------------------------------

RULESET = """\
table ip routemesh {
	map marks {
		type inet_proto . inet_service : mark
		elements = {
			tcp . 8080 : 0x00000100,
			udp . 53 : 0x00000101,
		}
	}
	map services {
		type mark : verdict
		elements = {
			0x00000100 : goto FWM-256,
		}
	}
	map backends {
		typeof meta mark . numgen inc mod 2 : ip daddr
		elements = {
			0x00000100 . 0 : 10.0.0.8,
		}
	}
	set published {
		type inet_proto . inet_service
	}
	chain FWM-256 {
		counter dnat to meta mark . numgen inc mod 1 map @backends
	}
	chain nat-prerouting {
		type nat hook prerouting priority -100; policy accept;
		iifname "eth1" meta mark vmap @services
	}
}
table netdev routemesh {
	chain egress {
		type filter hook egress device "eth0" priority 0; policy accept;
	}
}
"""
ITEMS: tuple[Item, ...] = (
    Netns("not-nftables"),
    Table("ip"),
    Table("netdev"),
    Map("ip", "marks", ("proto", "port"), "mark"),
    Map("ip", "services", ("mark",), "verdict"),
    Map("ip", "backends", ("mark", "index"), "ip"),
    Map("ip", "published", ("proto", "port")),
    Chain("ip", "FWM-256", rules=((Counter(), Dnat(Lookup(("meta mark", Numgen(1)), "backends"))),)),
    Chain(
        "ip",
        "nat-prerouting",
        Hook("nat", "prerouting", -100),
        ((Match("iifname", "eth1"), VerdictLookup(("meta mark",), "services")),),
    ),
    Chain("netdev", "egress", Hook("filter", "egress", 0, "eth0")),
    Element("ip", "marks", (Protocol.TCP, 8080), 0x100),
    Element("ip", "marks", (Protocol.UDP, 53), 0x101),
    Element("ip", "services", (0x100,), Verdict("goto", "FWM-256")),
    Element("ip", "backends", (0x100, 0), IPv4Address("10.0.0.8")),
)


def test_ruleset() -> None:
    assert ruleset(ITEMS) == RULESET


def test_an_empty_ruleset_is_no_text() -> None:
    assert ruleset([Netns("a")]) == ""


def test_a_map_that_learns() -> None:
    clients = Map("ip", "clients", ("ip", "mark"), "mark", learns=9)
    made = "add map ip routemesh clients { type ipv4_addr . mark : mark; size 9; flags dynamic,timeout; }\n"
    assert transaction(creations([clients])) == made
    shown = ["\tmap clients {", "\t\ttype ipv4_addr . mark : mark", "\t\tsize 9", "\t\tflags dynamic,timeout", "\t}"]
    assert ruleset([Table("ip"), clients]).splitlines() == ["table ip routemesh {", *shown, "}"]


def test_a_map_with_a_type_of_part_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="ipv6_addr"):
        ruleset([Table("ip"), Map("ip", "x", ("ipv6_addr",))])  # type: ignore[arg-type]


# --- transactions ------------------------------------------------------------------------------------------------


def test_creation_declares_chains_before_rules_and_batches_elements() -> None:
    first = Chain("ip", "first", rules=((Verdict("jump", "second"),),))
    second = Chain("ip", "second", Hook("nat", "output", -100), ((Counter(),), (Verdict("return"),)))
    elements = [Element("ip", "published", ("tcp", port)) for port in (80, 443)]
    items: list[Item] = [Table("ip"), Map("ip", "published", ("proto", "port")), first, second, elements[0], elements[1]]
    assert transaction(creations(items)).splitlines() == [
        "add table ip routemesh",
        "add set ip routemesh published { type inet_proto . inet_service; }",
        "add chain ip routemesh first",
        "flush chain ip routemesh first",
        "add chain ip routemesh second { type nat hook output priority -100; policy accept; }",
        "flush chain ip routemesh second",
        "add rule ip routemesh first jump second",
        "add rule ip routemesh second counter",
        "add rule ip routemesh second return",
        "add element ip routemesh published { tcp . 80, tcp . 443 }",
    ]


def test_a_changed_element_is_deleted_and_added() -> None:
    old, new = (Element("ip", "backends", (256, 0), IPv4Address(f"10.0.0.{host}")) for host in (8, 9))
    assert transaction([Change(HOST, old, new)]).splitlines() == [
        "delete element ip routemesh backends { 256 . 0 }",
        "add element ip routemesh backends { 256 . 0 : 10.0.0.9 }",
    ]


def test_deletion_empties_chains_first() -> None:
    ops = [
        Delete(HOST, Element("ip", "services", (256,), Verdict("goto", "FWM-256"))),
        Delete(HOST, Chain("ip", "FWM-256", rules=((Unknown("{}"),),))),
        Delete(HOST, Map("ip", "published", ("proto", "port"))),
        Delete(HOST, Map("ip", "services", ("mark",), "verdict")),
        Delete(HOST, Table("netdev")),
    ]
    assert transaction(ops).splitlines() == [
        "flush chain ip routemesh FWM-256",
        "delete element ip routemesh services { 256 }",
        "delete chain ip routemesh FWM-256",
        "delete set ip routemesh published",
        "delete map ip routemesh services",
        "delete table netdev routemesh",
    ]


def test_what_makes_room_stays_before_what_needs_it() -> None:
    old, new = Map("ip", "m", ("mark",), "ip"), Map("ip", "m", ("port",), "ip")
    last = Delete(HOST, Chain("ip", "c"))
    assert transaction([Delete(HOST, old), Create(HOST, new), last]).splitlines() == [
        "delete map ip routemesh m",
        "add map ip routemesh m { type inet_service : ipv4_addr; }",
        "flush chain ip routemesh c",
        "delete chain ip routemesh c",
    ]


def test_items_of_other_kinds_are_passed_over() -> None:
    assert transaction(creations([Netns("a"), Sysctl("net/ipv4/ip_forward", "1")])) == ""


# --- commands ----------------------------------------------------------------------------------------------------

BRIDGE = Link(name="docker_gwbridge", kind="bridge", mac="02:42:ac:12:00:01")
VETH = Link(name="eth1", kind="veth", peer=Peer(HOST, "veth0123456"), mtu=1450)
TUNNEL = Link(name="vxlan0", kind="vxlan", mtu=1450, master="br0", vxlan=Vxlan(4096, IPv4Address("192.168.200.10"), 4789))
ADDRESS = Address("eth0", IPv4Interface("10.0.0.2/24"))
ROUTE = Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth0", table=82)
RULE = RoutingRule(priority=82, fwmark=0x0A000000, mask=0xFF000000, table=82)
ARP = Neighbour("eth0", IPv4Address("10.0.0.1"), "02:42:0a:00:00:01")
REMOTE = FdbEntry("vxlan0", "02:42:0a:00:00:09", IPv4Address("192.168.200.11"))
LOCAL = FdbEntry("veth0", "02:42:0a:00:00:08")
ELEMENT = Element("ip", "marks", ("tcp", 8080), 256)
FORWARD = Sysctl("net/ipv4/ip_forward", "1")
INSIDE = "nsenter --net=/run/routemesh/netns/s "
COMMANDS: tuple[tuple[Op, str], ...] = (
    (Create(HOST, Netns("s")), "touch /run/routemesh/netns/s && unshare --net=/run/routemesh/netns/s true"),
    (Delete(HOST, Netns("s")), "umount /run/routemesh/netns/s && rm /run/routemesh/netns/s"),
    (
        Create(HOST, BRIDGE),
        "ip link add docker_gwbridge type bridge && "
        "ip link set docker_gwbridge alias routemesh mtu 1500 address 02:42:ac:12:00:01 nomaster up",
    ),
    (
        Create("s", VETH),
        "ip link add eth1 netns /run/routemesh/netns/s type veth peer name veth0123456 && "
        f"{INSIDE}ip link set eth1 alias routemesh mtu 1450 nomaster up",
    ),
    (
        Create("s", TUNNEL),
        "ip link add vxlan0 netns /run/routemesh/netns/s type vxlan id 4096 local 192.168.200.10 dstport 4789 nolearning proxy"
        " && "
        f"{INSIDE}ip link set vxlan0 alias routemesh mtu 1450 master br0 up && "
        f"{INSIDE}bridge link set dev vxlan0 learning off flood on isolated off",
    ),
    (Change("s", VETH, VETH), f"{INSIDE}ip link set eth1 alias routemesh mtu 1450 nomaster up"),
    (Delete(HOST, BRIDGE), "ip link del docker_gwbridge"),
    (Create("s", FORWARD), f"{INSIDE}sysctl -w net/ipv4/ip_forward=1"),
    (Delete("s", FORWARD), f"{INSIDE}sysctl net/ipv4/ip_forward"),
    (Create("s", ADDRESS), f"{INSIDE}ip address add 10.0.0.2/24 dev eth0"),
    (Delete("s", ADDRESS), f"{INSIDE}ip address del 10.0.0.2/24 dev eth0"),
    (Create(HOST, ROUTE), "ip route add default via 10.0.0.1 dev eth0 table 82 protocol 82"),
    (Change(HOST, ROUTE, ROUTE), "ip route replace default via 10.0.0.1 dev eth0 table 82 protocol 82"),
    (Create(HOST, RULE), "ip rule add pref 82 fwmark 0xa000000/0xff000000 lookup 82 protocol 82"),
    (
        Change(HOST, RULE, RULE),
        "ip rule del pref 82 protocol 82 && ip rule add pref 82 fwmark 0xa000000/0xff000000 lookup 82 protocol 82",
    ),
    (Create(HOST, ARP), "ip neighbour add 10.0.0.1 dev eth0 lladdr 02:42:0a:00:00:01 nud permanent protocol 82"),
    (Delete(HOST, ARP), "ip neighbour del 10.0.0.1 dev eth0"),
    (Create(HOST, REMOTE), "bridge fdb add 02:42:0a:00:00:09 dev vxlan0 dst 192.168.200.11 self permanent"),
    (Change(HOST, REMOTE, REMOTE), "bridge fdb replace 02:42:0a:00:00:09 dev vxlan0 dst 192.168.200.11 self permanent"),
    (Delete(HOST, LOCAL), "bridge fdb del 02:42:0a:00:00:08 dev veth0 master static"),
    (Create("s", ELEMENT), f"{INSIDE}nft 'add element ip routemesh marks {{ tcp . 8080 : 256 }}'"),
    (
        Create(HOST, Chain("ip", "c", rules=((Match("iifname", "eth0"), Counter()),))),
        "nft 'add chain ip routemesh c; flush chain ip routemesh c; add rule ip routemesh c iifname \"eth0\" counter'",
    ),
)


@pytest.mark.parametrize(("op", "text"), COMMANDS, ids=[text for _, text in COMMANDS])
def test_commands(op: Op, text: str) -> None:
    assert command(op) == text


def test_namespaces_may_be_kept_elsewhere() -> None:
    text = command(Create("s", VETH), lambda netns: f"/run/lab one/{netns}")
    assert text.startswith("ip link add eth1 netns '/run/lab one/s' type veth")
    assert "nsenter --net='/run/lab one/s' ip link set" in text


def test_names_are_quoted_for_the_shell() -> None:
    assert command(Delete(HOST, Link(name="a;b", kind="bridge"))) == "ip link del 'a;b'"
    assert command(Create("x y", FORWARD)).startswith("nsenter --net='/run/routemesh/netns/x y' ")
