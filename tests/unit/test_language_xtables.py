"""iptables' language, exact where people read it. What is written is read back: tests/property/test_xtables.py."""

from ipaddress import IPv4Address

import pytest

from routemesh.language import command
from routemesh.language.xtables import saved, transaction
from routemesh.language.xtrule import rule_text
from routemesh.nodeplan import (
    HOST,
    Assign,
    Change,
    ClampMss,
    Counter,
    Create,
    Delete,
    Dnat,
    InSet,
    IpvsMatch,
    Lookup,
    MarkMatch,
    Masquerade,
    Match,
    Op,
    Redirect,
    Reject,
    Rule,
    Snat,
    Statement,
    Unknown,
    Verdict,
    VerdictLookup,
    XtChain,
    XtRule,
    key,
)

TCP = Match("meta l4proto", "tcp")
TO_LOCAL: Rule = (Match("fib daddr type", "local"), Verdict("jump", "DOCKER-INGRESS"))
RETURN: Rule = (Verdict("return"),)
PUBLISH: Rule = (TCP, Match("th dport", "8080"), Dnat(IPv4Address("172.18.0.2"), 8080))
INGRESS = XtChain("nat", "DOCKER-INGRESS", (PUBLISH, RETURN))
ADMIT = XtChain("filter", "DOCKER-INGRESS", (RETURN,))
TO_INGRESS = XtRule("nat", "PREROUTING", TO_LOCAL)
FENCE = XtRule("filter", "FORWARD", (Match("iifname", "docker_gwbridge"), Verdict("drop")), head=False)
MARKING = XtChain("mangle", "PREROUTING", ((TCP, Match("th dport", "8080"), Assign("meta mark", 256)),), "ACCEPT")


# --- rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (PUBLISH, "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080"),
        (TO_LOCAL, "-m addrtype --dst-type LOCAL -j DOCKER-INGRESS"),
        ((Match("ip daddr", "10.0.0.9"), Match("iifname", "veth*", True)), "-d 10.0.0.9/32 ! -i veth+"),
        ((TCP, Match("tcp flags", "syn"), ClampMss(1410)), "-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 1410"),
        ((TCP, Match("tcp flags", "syn / fin,syn")), "-p tcp -m tcp --tcp-flags FIN,SYN SYN"),
        ((Match("ct state", "established,new"), Verdict("accept")), "-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"),
        ((Match("ct status", "dnat"), Masquerade()), "-m conntrack --ctstate DNAT -j MASQUERADE"),
        ((Match("ct status", "seen-reply"),), "-m conntrack --ctstatus SEEN_REPLY"),
        ((Match("ct direction", "reply"), Assign("meta mark", "ct mark")),
         "-m conntrack --ctdir REPLY -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"),
        ((Match("ether saddr", "02:42:0a:00:00:02"), Assign("ct mark", 0x0A000002)),
         "-m mac --mac-source 02:42:0a:00:00:02 -j CONNMARK --set-xmark 0xa000002/0xffffffff"),
        ((MarkMatch("meta mark", 256, 0xFFFFFFFF), IpvsMatch(), Snat(IPv4Address("10.0.0.2"))),
         "-m mark --mark 0x100 -m ipvs --ipvs -j SNAT --to-source 10.0.0.2"),
        ((Match("meta l4proto", "icmp", True), Verdict("goto", "X")), "! -p icmp -g X"),
        ((Reject("icmp port-unreachable"),), "-j REJECT --reject-with icmp-port-unreachable"),
        ((TCP, Redirect(80)), "-p tcp -j REDIRECT --to-ports 80"),
        ((), ""),
    ],
)  # fmt: skip
def test_a_rule_reads_as_iptables_save_prints_it(rule: Rule, text: str) -> None:
    assert rule_text(rule) == text


def test_a_comment_stands_before_the_target() -> None:
    assert rule_text(TO_LOCAL, "routemesh") == "-m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS"


@pytest.mark.parametrize(
    "rule",
    [
        (Counter(),),
        (Unknown("-j LOG"),),
        (Match("th dport", "80"),),
        (Match("meta l4proto", "icmp"), Match("th dport", "80")),
        (Match("meta l4proto", "udp"), Match("tcp flags", "syn")),
        (TCP, Match("tcp flags", "fin,syn")),
        (Match("ip saddr", "0.0.0.0/0"),),
        (TCP, Match("tcp flags", "ecn")),
        (Match("ct status", "dnat,assured"),),
        (Match("ct direction", "reply", True),),
        (Match("ether daddr", "02:42:0a:00:00:02"),),
        (InSet(("th dport",), "ports"),),
        (VerdictLookup(("meta mark",), "chains"),),
        (Assign("meta mark", Lookup(("th dport",), "marks")),),
        (Assign("ct original zone", 5),),
        (Dnat(Lookup(("meta mark",), "backends")),),
        (Masquerade(), Verdict("accept")),
        (Verdict("jump", "-j DROP"),),
        (Verdict("jump", "X\nCOMMIT"),),
        (Verdict("jump", "X" * 29),),
        (Match("iifname", "eth0 -j ACCEPT"),),
    ],
    ids=str,
)
def test_refuses_what_iptables_has_no_word_for(rule: tuple[Statement, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        rule_text(rule)


# --- transactions ------------------------------------------------------------------------------------------------


def test_a_transaction_replaces_chains_whole_and_puts_our_rules_among_others() -> None:
    ops = [Create(HOST, ADMIT), Create(HOST, INGRESS), Create(HOST, TO_INGRESS), Create(HOST, FENCE)]
    assert transaction(ops) == (
        "*filter\n"
        ":DOCKER-INGRESS - [0:0]\n"
        "-A DOCKER-INGRESS -j RETURN\n"
        "-A FORWARD -i docker_gwbridge -m comment --comment routemesh -j DROP\n"
        "COMMIT\n"
        "*nat\n"
        ":DOCKER-INGRESS - [0:0]\n"
        "-A DOCKER-INGRESS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080\n"
        "-A DOCKER-INGRESS -j RETURN\n"
        "-I PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS\n"
        "COMMIT\n"
    )


def test_a_built_in_chain_of_ours_is_emptied_first_and_left_open() -> None:
    closed = XtChain("mangle", "PREROUTING", (), "DROP")
    assert transaction([Create("task", MARKING)]) == (
        "*mangle\n"
        ":PREROUTING ACCEPT [0:0]\n"
        "-F PREROUTING\n"
        "-A PREROUTING -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x100/0xffffffff\n"
        "COMMIT\n"
    )
    assert transaction([Change("task", closed, MARKING)]) == (
        "*mangle\n-P PREROUTING ACCEPT\n-I PREROUTING 1 -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x100/0xffffffff\nCOMMIT\n"
    )
    assert transaction([Delete("task", closed)]) == "*mangle\n-F PREROUTING\n-P PREROUTING ACCEPT\nCOMMIT\n"


def test_of_a_chain_that_changes_only_what_differs_is_touched() -> None:
    other, drop = (TCP, *RETURN), (Verdict("drop"),)
    more = XtChain("nat", "DOCKER-INGRESS", (other, PUBLISH, drop, drop))
    assert transaction([Change(HOST, INGRESS, more)]) == (
        "*nat\n"
        "-D DOCKER-INGRESS 2\n"
        "-I DOCKER-INGRESS 2 -j DROP\n"
        "-I DOCKER-INGRESS 2 -j DROP\n"
        "-I DOCKER-INGRESS 1 -p tcp -j RETURN\n"
        "COMMIT\n"
    )
    assert transaction([Change(HOST, more, INGRESS)]) == (
        "*nat\n-D DOCKER-INGRESS 4\n-D DOCKER-INGRESS 3\n-I DOCKER-INGRESS 3 -j RETURN\n-D DOCKER-INGRESS 1\nCOMMIT\n"
    )


def test_deletions_end_with_the_chains() -> None:
    inner, outer = XtChain("nat", "INNER", (RETURN,)), XtChain("nat", "OUTER", ((Verdict("jump", "INNER"),),))
    assert transaction([Delete(HOST, TO_INGRESS), Delete(HOST, outer), Delete(HOST, inner)]) == (
        "*nat\n"
        "-D PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS\n"
        "-F OUTER\n"
        "-F INNER\n"
        "-X OUTER\n"
        "-X INNER\n"
        "COMMIT\n"
    )


def test_of_several_copies_one_is_left_and_all_are_deleted_as_they_are_spelled() -> None:
    twice = XtRule("nat", "PREROUTING", RETURN, copies=2)
    once = XtRule("nat", "PREROUTING", RETURN)
    ours = "-m comment --comment routemesh -j RETURN"
    assert (
        transaction([Change(HOST, twice, once)])
        == f"*nat\n-D PREROUTING {ours}\n-D PREROUTING {ours}\n-I PREROUTING {ours}\nCOMMIT\n"
    )
    texts = {key(twice): [ours, f"-p all {ours}"]}
    assert transaction([Delete(HOST, twice)], texts) == f"*nat\n-D PREROUTING {ours}\n-D PREROUTING -p all {ours}\nCOMMIT\n"


def test_the_built_in_chains_of_the_node_are_not_ours() -> None:
    for op in (Create(HOST, MARKING), Delete(HOST, MARKING)):
        with pytest.raises(ValueError, match="not routemesh's"):
            transaction([op])


# --- for people --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "line"),
    [
        (
            Create(HOST, TO_INGRESS),
            "iptables -t nat -I PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS",
        ),
        (
            Delete("task", FENCE),
            "nsenter --net=/run/routemesh/netns/task "
            "iptables -t filter -D FORWARD -i docker_gwbridge -m comment --comment routemesh -j DROP",
        ),
        (
            Change(HOST, XtRule("nat", "INPUT", RETURN, copies=2), XtRule("nat", "INPUT", RETURN)),
            "iptables -t nat -D INPUT -m comment --comment routemesh -j RETURN && "
            "iptables -t nat -D INPUT -m comment --comment routemesh -j RETURN && "
            "iptables -t nat -I INPUT -m comment --comment routemesh -j RETURN",
        ),
        (
            Create("task", ADMIT),
            "printf '%s\\n' '*filter' ':DOCKER-INGRESS - [0:0]' '-A DOCKER-INGRESS -j RETURN' COMMIT | "
            "nsenter --net=/run/routemesh/netns/task iptables-restore --noflush",
        ),
        (
            Delete(HOST, ADMIT),
            "iptables -t filter -F DOCKER-INGRESS && iptables -t filter -X DOCKER-INGRESS",
        ),
        (Delete("", XtChain("filter", "INPUT", (), "ACCEPT")), "iptables -t filter -F INPUT"),
        (
            Delete("", XtChain("filter", "INPUT", (), "DROP")),
            "iptables -t filter -F INPUT && iptables -t filter -P INPUT ACCEPT",
        ),
        (
            Delete("", XtRule("nat", "INPUT", (Unknown('-m string --string "a $b"'),))),
            "iptables -t nat -D INPUT -m string --string 'a $b' -m comment --comment routemesh",
        ),
    ],
)
def test_commands(op: Op, line: str) -> None:
    assert command(op) == line


def test_what_a_node_has_reads_like_iptables_save() -> None:
    assert saved([INGRESS, ADMIT, TO_INGRESS, XtRule("nat", "PREROUTING", RETURN), FENCE]) == (
        "*nat\n"
        ":PREROUTING ACCEPT [0:0]\n"
        ":INPUT ACCEPT [0:0]\n"
        ":OUTPUT ACCEPT [0:0]\n"
        ":POSTROUTING ACCEPT [0:0]\n"
        ":DOCKER-INGRESS - [0:0]\n"
        "-A PREROUTING -m comment --comment routemesh -j RETURN\n"
        "-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS\n"
        "-A DOCKER-INGRESS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080\n"
        "-A DOCKER-INGRESS -j RETURN\n"
        "COMMIT\n"
        "*filter\n"
        ":INPUT ACCEPT [0:0]\n"
        ":FORWARD ACCEPT [0:0]\n"
        ":OUTPUT ACCEPT [0:0]\n"
        ":DOCKER-INGRESS - [0:0]\n"
        "-A FORWARD -i docker_gwbridge -m comment --comment routemesh -j DROP\n"
        "-A DOCKER-INGRESS -j RETURN\n"
        "COMMIT\n"
    )
