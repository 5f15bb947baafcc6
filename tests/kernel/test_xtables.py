"""iptables: the same tests for the fake and for both variants on Linux, and what only the real ones can show."""

import fcntl
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routemesh.diff import diff
from routemesh.kernel import Kernel
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.tables import xttools
from routemesh.kernel.tables.xttools import Variant
from routemesh.names import SANDBOX
from routemesh.nodeplan import (
    BUILT_IN,
    HOST,
    Assign,
    Change,
    ClampMss,
    Counter,
    Create,
    Delete,
    Dnat,
    IpvsMatch,
    Item,
    MarkMatch,
    Masquerade,
    Match,
    Netns,
    NodePlan,
    Op,
    Redirect,
    Reject,
    Rule,
    Snat,
    Statement,
    Sysctl,
    Table,
    Verdict,
    XtChain,
    XtRule,
    namespace,
)
from routemesh.values import replace
from tests.kernel.private import Private, private_netns
from tests.property.xtrules import rules
from tests.support import require, wait_until

TCP = Match("meta l4proto", "tcp")
RETURN: Rule = (Verdict("return"),)


def publish(port: int) -> Rule:
    return TCP, Match("th dport", str(port)), Dnat(IPv4Address("172.18.0.2"), port)


CLOSED_PORT: Rule = (TCP, Match("th dport", "9"), Verdict("accept"))
INGRESS = XtChain("nat", "DOCKER-INGRESS", (publish(8080), RETURN))
TWO_PORTS = replace(INGRESS, rules=(publish(9090), *INGRESS.rules))
ADMIT = XtChain("filter", "DOCKER-INGRESS", ((TCP, Match("th dport", "8080"), Verdict("accept")), RETURN))
TO_INGRESS = XtRule("nat", "PREROUTING", (Match("fib daddr type", "local"), Verdict("jump", "DOCKER-INGRESS")))
TRANSLATE = XtRule("nat", "POSTROUTING", (Match("oifname", "docker_gwbridge"), Match("fib saddr type", "local"), Masquerade()))
ADMITTED = XtRule("filter", "FORWARD", (Verdict("jump", "DOCKER-INGRESS"),))
FENCE = XtRule("filter", "FORWARD", (Match("iifname", "docker_gwbridge"), Verdict("drop")), head=False)
ON_THE_NODE: tuple[Item, ...] = (INGRESS, ADMIT, TO_INGRESS, TRANSLATE, ADMITTED, FENCE)

RETURN_CHAIN = XtChain(
    "mangle", "ROUTEMESH-RETURN", ((Match("ether saddr", "02:42:0a:00:00:02"), Assign("ct mark", 0x0A000002)),)
)
MARKING = XtChain(
    "mangle",
    "PREROUTING",
    (
        (TCP, Match("th dport", "8080"), Assign("meta mark", 256)),
        (Match("iifname", "eth0"), Match("ct state", "new"), Verdict("jump", "ROUTEMESH-RETURN")),
    ),
    "ACCEPT",
)
REDIRECTION = XtChain(
    "nat", "PREROUTING", ((Match("ip daddr", "10.0.0.9"), TCP, Match("th dport", "8080"), Redirect(80)),), "ACCEPT"
)
CLOSED = XtChain("filter", "FORWARD", (), "DROP")
IN_THE_SANDBOX: tuple[Item, ...] = (RETURN_CHAIN, MARKING, REDIRECTION, CLOSED)


def planned(node: tuple[Item, ...] = ON_THE_NODE, sandbox: tuple[Item, ...] = IN_THE_SANDBOX) -> NodePlan:
    return NodePlan({HOST: namespace((Netns(SANDBOX), *node)), SANDBOX: namespace(sandbox)})


PLAN = planned()
EMPTY = NodePlan({HOST: namespace([Netns(SANDBOX)])})


class XtablesContract(ABC):
    """Every test starts with a kernel in which there is nothing of ours but an empty sandbox."""

    @pytest.fixture
    @abstractmethod
    def kernel(self) -> Iterator[Kernel]:
        """With the sandbox."""

    @abstractmethod
    def by_hand(self, kernel: Kernel, *ops: Op) -> None:
        """Somebody else does that."""

    def do(self, kernel: Kernel, *ops: Op) -> None:
        failures = kernel.apply(ops)
        assert failures == (), [str(failure) for failure in failures]

    def build(self, kernel: Kernel, plan: NodePlan = PLAN) -> None:
        self.do(kernel, *diff(kernel.read(plan), plan))
        assert diff(kernel.read(plan), plan) == ()

    def found(self, kernel: Kernel, netns: str) -> set[Item]:
        return set(kernel.read(NodePlan()).namespaces.get(netns, {}).values()) - {Netns(SANDBOX)}

    def test_builds_all_from_nothing_and_leaves_it_alone(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, *diff(EMPTY, PLAN))
        assert diff(kernel.read(PLAN), PLAN) == ()

    def test_removes_all_that_is_not_wanted(self, kernel: Kernel) -> None:
        self.build(kernel)
        unwanted = diff(kernel.read(EMPTY), EMPTY)
        self.do(kernel, *unwanted)
        assert kernel.read(EMPTY) == EMPTY
        self.do(kernel, *unwanted)

    @pytest.mark.parametrize(
        ("netns", "old", "new"),
        [
            (HOST, INGRESS, TWO_PORTS),
            (HOST, INGRESS, replace(INGRESS, rules=())),
            (SANDBOX, MARKING, replace(MARKING, rules=MARKING.rules[:1])),
            (SANDBOX, MARKING, replace(MARKING, rules=MARKING.rules[::-1])),
            (SANDBOX, MARKING, replace(MARKING, policy="DROP")),
            (SANDBOX, CLOSED, replace(CLOSED, rules=(RETURN,), policy="ACCEPT")),
            (SANDBOX, RETURN_CHAIN, replace(RETURN_CHAIN, rules=())),
        ],
    )
    def test_changes_a_chain_and_no_other(self, kernel: Kernel, netns: str, old: XtChain, new: XtChain) -> None:
        self.build(kernel)
        others = self.found(kernel, netns) - {old}
        for before, after in ((old, new), (new, old)):
            self.do(kernel, Change(netns, before, after))
            assert self.found(kernel, netns) == others | {after}

    def test_a_built_in_chain_that_lets_all_pass_is_nothing(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Change(SANDBOX, MARKING, replace(MARKING, rules=())), Delete(SANDBOX, CLOSED))
        assert self.found(kernel, SANDBOX) == {RETURN_CHAIN, REDIRECTION}
        self.do(kernel, Create(SANDBOX, replace(CLOSED, policy="ACCEPT")))
        assert self.found(kernel, SANDBOX) == {RETURN_CHAIN, REDIRECTION}

    def test_a_rule_that_somebody_deleted_comes_back(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.by_hand(kernel, Delete(HOST, TO_INGRESS))
        assert diff(kernel.read(PLAN), PLAN) == (Create(HOST, TO_INGRESS),)
        self.build(kernel)

    def test_of_a_rule_that_is_there_more_than_once_one_stays(self, kernel: Kernel) -> None:
        self.build(kernel)
        twice = replace(TO_INGRESS, copies=2)
        self.by_hand(kernel, Change(HOST, TO_INGRESS, twice))
        assert diff(kernel.read(PLAN), PLAN) == (Change(HOST, twice, TO_INGRESS),)
        self.build(kernel)

    def test_a_chain_of_our_name_alone_is_not_ours_unless_it_is_wanted(self, kernel: Kernel) -> None:
        self.by_hand(kernel, Create(HOST, INGRESS))
        assert kernel.read(EMPTY) == EMPTY
        plan = planned((TWO_PORTS, TO_INGRESS), ())
        assert diff(kernel.read(plan), plan) == (Create(HOST, TO_INGRESS), Change(HOST, INGRESS, TWO_PORTS))[::-1]
        self.build(kernel, plan)

    @pytest.mark.parametrize(
        ("netns", "item"),
        [
            (HOST, XtRule("nat", "OUTPUT", (Verdict("jump", "NOWHERE"),))),
            (SANDBOX, XtChain("nat", "OUTPUT", (RETURN, (Verdict("jump", "NOWHERE"),)), "ACCEPT")),
            (SANDBOX, XtChain("nat", "ODD", (RETURN, (Verdict("goto", "NOWHERE"),)))),
            (SANDBOX, XtChain("nat", "ODD", ((Counter(), Verdict("drop")),))),
            (HOST, XtChain("nat", "OUTPUT", (RETURN,), "ACCEPT")),
            (HOST, XtChain("filter", "INPUT", (), "DROP")),
        ],
    )
    def test_what_is_at_fault_is_refused_alone(self, kernel: Kernel, netns: str, item: Item) -> None:
        needed = diff(EMPTY, PLAN)
        (failure,) = kernel.apply([*needed[:3], Create(netns, item), *needed[3:]])
        assert failure.op == Create(netns, item)
        assert diff(kernel.read(PLAN), PLAN) == ()

    def test_a_chain_that_a_rule_jumps_to_can_not_be_deleted(self, kernel: Kernel) -> None:
        self.build(kernel)
        ops = [Delete(HOST, INGRESS), Delete(HOST, TRANSLATE), Delete(SANDBOX, RETURN_CHAIN), Delete(SANDBOX, REDIRECTION)]
        failures = kernel.apply(ops)
        assert [failure.op for failure in failures] == [ops[0], ops[2]]
        assert set(diff(kernel.read(PLAN), PLAN)) == {Create(HOST, TRANSLATE), Create(SANDBOX, REDIRECTION)}

    def test_where_there_is_no_namespace(self, kernel: Kernel) -> None:
        failures = kernel.apply([Create("nowhere", MARKING)])
        assert [failure.reason for failure in failures] == ["there is no namespace nowhere"]
        self.do(kernel, Delete("nowhere", MARKING))


class TestFakeKernel(XtablesContract):
    @pytest.fixture
    def kernel(self) -> Iterator[Kernel]:
        kernel = FakeKernel()
        kernel.apply([Create(HOST, Netns(SANDBOX))])
        yield kernel

    def by_hand(self, kernel: Kernel, *ops: Op) -> None:
        assert isinstance(kernel, FakeKernel)
        kernel.by_others(*ops)


def kernel_save(kernel: Kernel, program: str) -> str:
    """What iptables-save prints in the sandbox."""
    enter = ("nsenter", f"--net={kernel.netns_path(SANDBOX)}")
    return subprocess.run((*enter, program), check=True, capture_output=True, text=True).stdout


def bare(saved: str) -> list[str]:
    """Without comments and times, and without tables in which there is nothing."""
    sections = [section.splitlines() for section in saved.split("COMMIT")]
    lines = [[line for line in section if line and not line.startswith("#")] for section in sections]
    return sorted(line for section in lines if any("-A" in line or "DROP" in line for line in section) for line in section)


ONCE = {"th sport": "ports", "th dport": "ports", "tcp flags": "ports", "meta mark": "marks", "ct mark": "marks"}


def as_kernels_allow(rule: Rule) -> Rule:
    """Without jumps, most of which would be loops, and without IPVS, which not every kernel has.

    What is about ports needs a protocol; TCP alone can be reset, and only a SYN has an MSS. Ports and marks are asked for once:
    1.8.9 makes one of several such matches, or takes one module's option for the other's.
    """
    others: list[Statement] = []
    asked: set[str] = set()
    for part in rule:
        about = ONCE.get(part.field, "") if isinstance(part, Match | MarkMatch) else ""
        if about not in asked and part != IpvsMatch() and not (isinstance(part, Verdict) and part.chain):
            others.append(part)
            asked |= {about} - {""}
    if not others or not isinstance(others[-1], Dnat | Redirect | Reject | ClampMss):
        return tuple(others)
    *conditions, target = others
    of_tcp = ("meta l4proto", "th sport", "th dport", "tcp flags")
    first = ("ip saddr", "ip daddr", "iifname", "oifname")
    conditions = [part for part in conditions if not (isinstance(part, Match) and part.field in of_tcp)]
    basic = [part for part in conditions if isinstance(part, Match) and part.field in first]
    return (*basic, TCP, *(part for part in conditions if part not in basic), Match("tcp flags", "syn"), target)


def table_of(rule: Rule) -> str:
    """Where iptables allows the target."""
    match rule[-1] if rule else None:
        case Dnat() | Snat() | Masquerade() | Redirect():
            return "nat"
        case Reject():
            return "filter"
        case _:
            return "mangle"


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Variant], None]:
    """Make one variant the one that `iptables` is."""

    def choose(variant: Variant) -> None:
        require("root", "netns", "iptables-nft" if variant == "nft" else "iptables-legacy")
        directory = tmp_path / variant
        directory.mkdir()
        (directory / "iptables").symlink_to(f"/usr/sbin/iptables-{variant}")
        monkeypatch.setenv("PATH", f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin")

    return choose


class OnLinux(XtablesContract):
    """On the real kernel, in a namespace of its own that plays the node's."""

    VARIANT: Variant

    @pytest.fixture
    def node(self, use: Callable[[Variant], None]) -> Iterator[Private]:
        use(self.VARIANT)
        with private_netns(with_tables=False) as made, made.enter():
            yield made

    @pytest.fixture
    def kernel(self, node: Private, tmp_path: Path) -> Iterator[Kernel]:
        with closing(LinuxKernel(tmp_path / "run")) as kernel:
            kernel.apply([Create(HOST, Netns(SANDBOX))])
            try:
                yield kernel
            finally:
                kernel.apply([Delete(HOST, Netns(SANDBOX))])

    def iptables(self, *words: str) -> str:
        """What a person does on the node."""
        done = subprocess.run([f"iptables-{self.VARIANT}", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def by_hand(self, kernel: Kernel, *ops: Op) -> None:
        for op in ops:
            match op:
                case Create(_, XtChain(table, name, rules)):
                    assert (table, name, rules) == (INGRESS.table, INGRESS.name, INGRESS.rules)
                    self.iptables("-t", "nat", "-N", name)
                    self.iptables(
                        "-t", "nat", "-A", name, *["-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to", "172.18.0.2:8080"]
                    )
                    self.iptables("-t", "nat", "-A", name, "-j", "RETURN")
                case Delete(_, item) if item == TO_INGRESS:
                    self.iptables("-t", "nat", "-D", "PREROUTING", "1")
                case Change(_, XtRule() as old, XtRule(copies=2)) if old == TO_INGRESS:
                    jump = "-m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS"
                    self.iptables("-t", "nat", "-A", "PREROUTING", *jump.split())
                case _:
                    raise AssertionError(op)

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of the processes that were started."""
        names: list[str] = []
        popen = subprocess.Popen

        def noted(command: list[str], **options: Any) -> subprocess.Popen[str]:
            if Path(command[0]).name in (self.save, self.restore):
                names.append(Path(command[0]).name)
            return popen(command, **options)

        monkeypatch.setattr(subprocess, "Popen", noted)
        return names

    @property
    def restore(self) -> str:
        return f"iptables-{self.VARIANT}-restore"

    @property
    def save(self) -> str:
        return f"iptables-{self.VARIANT}-save"

    def test_tells_which_variant_works(self, kernel: Kernel) -> None:
        assert kernel.capabilities().iptables == self.VARIANT

    def test_takes_the_other_variant_where_the_usual_one_is_missing(
        self, kernel: Kernel, use: Callable[[Variant], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other: Variant = "legacy" if self.VARIANT == "nft" else "nft"
        use(other)
        monkeypatch.setattr(
            xttools, "_program", lambda variant, action: f"iptables-{variant}-{action}" * (variant == self.VARIANT)
        )
        assert kernel.capabilities().iptables == self.VARIANT
        monkeypatch.setattr(xttools, "_program", lambda variant, action: "/nonexistent/iptables-restore")
        assert kernel.capabilities().iptables == ""
        failures = kernel.apply([Create(SANDBOX, CLOSED), Delete(SANDBOX, MARKING)])
        assert [failure.op for failure in failures] == [Create(SANDBOX, CLOSED)]
        assert "install Debian's iptables" in failures[0].reason

    def test_our_rules_stand_before_or_behind_those_of_others_which_stay(self, node: Private, kernel: Kernel) -> None:
        self.iptables("-P", "FORWARD", "DROP")
        self.iptables("-A", "FORWARD", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs")
        self.iptables("-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "RETURN")
        before = node.run(self.save)
        self.build(kernel)
        assert self.iptables("-S", "FORWARD").splitlines() == [
            "-P FORWARD DROP",
            "-A FORWARD -m comment --comment routemesh -j DOCKER-INGRESS",
            "-A FORWARD -m comment --comment theirs -j ACCEPT",
            "-A FORWARD -i docker_gwbridge -m comment --comment routemesh -j DROP",
        ]
        assert self.iptables("-t", "nat", "-S", "PREROUTING").splitlines()[1:] == [
            "-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS",
            "-A PREROUTING -p udp -j RETURN",
        ]
        self.do(kernel, *diff(kernel.read(EMPTY), EMPTY))
        assert bare(node.run(self.save)) == bare(before)

    def test_an_unchanged_namespace_costs_no_process_and_a_change_two(self, kernel: Kernel, started: list[str]) -> None:
        kernel.capabilities()
        started.clear()
        self.build(kernel)
        assert sorted(started) == [self.restore, self.restore, self.save, self.save]  # a namespace has one of each
        started.clear()
        for _ in range(3):
            assert diff(kernel.read(PLAN), PLAN) == ()
        self.do(kernel, *diff(EMPTY, PLAN))
        assert started == []
        self.do(kernel, Change(HOST, INGRESS, TWO_PORTS), Delete(HOST, FENCE))
        assert started == [self.restore]
        kernel.read(PLAN)
        assert started == [self.restore, self.save]

    def test_counters_are_no_change(self, kernel: Kernel, started: list[str]) -> None:
        seen = XtRule("mangle", "OUTPUT", (Match("meta l4proto", "tcp"),))
        plan = planned((seen,), ())
        self.build(kernel, plan)
        started.clear()
        with socket.socket() as client:
            client.connect_ex(("127.0.0.1", 9))
        assert "[0:0]" not in self.iptables("-t", "mangle", "-S", "OUTPUT", "-v")
        assert diff(kernel.read(plan), plan) == ()
        assert started == []

    def test_rules_that_stay_keep_counting(self, kernel: Kernel) -> None:
        seen: Rule = (Match("meta l4proto", "tcp"),)
        chain = XtChain("filter", "DOCKER-INGRESS", (RETURN, seen, RETURN))
        entrance = XtRule("filter", "OUTPUT", (Verdict("jump", "DOCKER-INGRESS"),))
        self.build(kernel, planned((replace(chain, rules=chain.rules[1:]), entrance), ()))
        with socket.socket() as client:
            client.connect_ex(("127.0.0.1", 9))
        for other in ((seen, CLOSED_PORT, RETURN), (CLOSED_PORT, seen), (RETURN, seen, RETURN)):
            self.build(kernel, planned((replace(chain, rules=other), entrance), ()))
            (counted,) = (line for line in self.iptables("-S", "DOCKER-INGRESS", "-v").splitlines() if "-p tcp -c" in line)
            assert not counted.endswith("-c 0 0")

    def test_a_plan_without_iptables_starts_no_process(self, kernel: Kernel, started: list[str]) -> None:
        self.iptables("-A", "FORWARD", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs")
        started.clear()
        self.build(kernel, EMPTY)
        self.do(kernel, Create(HOST, Table("ip")) if self.VARIANT == "nft" else Create(HOST, Sysctl("net/ipv4/ip_forward", "1")))
        kernel.read(EMPTY)
        assert started == []

    def test_who_has_no_memory_finds_what_is_ours_and_can_remove_it(
        self, node: Private, kernel: Kernel, tmp_path: Path, started: list[str]
    ) -> None:
        self.iptables("-A", "FORWARD", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs")
        self.build(kernel)
        with closing(LinuxKernel(tmp_path / "run")) as restarted:
            assert diff(restarted.read(PLAN), PLAN) == ()
        with closing(LinuxKernel(tmp_path / "run")) as restarted:
            self.do(restarted, *diff(restarted.read(EMPTY), EMPTY))
            assert restarted.read(EMPTY) == EMPTY
            started.clear()
            restarted.read(EMPTY)
            assert started == []
        assert self.iptables("-S").splitlines()[-1] == "-A FORWARD -m comment --comment theirs -j ACCEPT"
        assert "routemesh" not in node.run(self.save)
        assert "DOCKER-INGRESS" not in node.run(self.save)
        assert "-A" not in kernel_save(kernel, self.save)

    def test_a_chain_to_which_rules_of_others_jump_is_left_to_them_empty(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.iptables("-t", "nat", "-A", "OUTPUT", "-j", "DOCKER-INGRESS")
        self.do(kernel, *diff(kernel.read(EMPTY), EMPTY))
        assert kernel.read(EMPTY) == EMPTY
        assert self.iptables("-t", "nat", "-S").splitlines()[-2:] == ["-N DOCKER-INGRESS", "-A OUTPUT -j DOCKER-INGRESS"]

    def test_what_is_ours_in_the_variant_that_is_not_in_use_goes(
        self, node: Private, kernel: Kernel, tmp_path: Path, use: Callable[[Variant], None]
    ) -> None:
        self.build(kernel)
        use("legacy" if self.VARIANT == "nft" else "nft")
        with closing(LinuxKernel(tmp_path / "run")) as restarted:
            self.build(restarted)
            assert diff(restarted.read(PLAN), PLAN) == ()
            assert "routemesh" not in node.run(self.save)
            assert "-A" not in kernel_save(restarted, self.save)
            self.do(restarted, *diff(restarted.read(EMPTY), EMPTY))
            assert restarted.read(EMPTY) == EMPTY
        self.do(kernel, *diff(kernel.read(PLAN), PLAN))

    @pytest.mark.parametrize(
        "rule",
        [
            "-p tcp -m state --state NEW -m tcp --dport 80 -m comment --comment routemesh -j ACCEPT",
            '-m comment --comment routemesh -m limit --limit 3/sec -j LOG --log-prefix "a \\"b\\" -j c "',
        ],
    )
    def test_a_rule_with_our_comment_is_deleted_however_it_is_spelled(self, node: Private, kernel: Kernel, rule: str) -> None:
        node.run(self.restore, "--noflush", stdin=f"*filter\n-A FORWARD {rule}\nCOMMIT\n")
        self.build(kernel)
        assert "-dport 80 " not in self.iptables("-S", "FORWARD")
        assert "LOG" not in self.iptables("-S", "FORWARD")

    def test_a_lock_that_others_hold_is_waited_for_and_not_for_ever(
        self, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock = tmp_path / "lock"
        monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))
        monkeypatch.setattr(xttools, "_WAIT_FOR_LOCK_S", 1)
        kernel.capabilities()
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            failures = kernel.apply(diff(EMPTY, PLAN))
        if self.VARIANT == "nft":  # the kernel's transactions need no lock
            assert failures == ()
        else:
            assert len(failures) == len(diff(EMPTY, PLAN))
            assert "another program holds the lock of iptables, after 1 s of waiting" in str(failures[0])
        self.build(kernel)

    def test_a_match_that_the_kernel_lacks_is_named(self, kernel: Kernel) -> None:
        if Path("/proc/net/ip_vs").exists():
            pytest.skip("this kernel has IPVS")
        chain = XtChain("nat", "POSTROUTING", (RETURN, (IpvsMatch(), Verdict("return"))), "ACCEPT")
        (failure,) = kernel.apply([Create(SANDBOX, chain)])
        assert "ipvs" in failure.reason
        assert failure.command.startswith("printf '%s\\n' '*nat'")
        (failure,) = kernel.apply([Create(SANDBOX, replace(chain, rules=chain.rules * 100))])
        assert len(failure.command) < 1100

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(st.lists(rules().map(as_kernels_allow), min_size=1, max_size=8))
    def test_rules_are_read_as_they_were_written(self, kernel: Kernel, drawn: list[Rule]) -> None:
        chains = [XtChain(table, "TEST", tuple(rule for rule in drawn if table_of(rule) == table)) for table in BUILT_IN]
        plan = planned((), tuple(chain for chain in chains if chain.rules))
        self.build(kernel, plan)


@pytest.mark.ip_vs
def test_rules_about_what_ipvs_balances(tmp_path: Path) -> None:
    """With whichever iptables works in a kernel that has IPVS."""
    balanced = (Match("ip daddr", "10.0.0.0/24"), IpvsMatch(), Snat(IPv4Address("10.0.0.2")))
    by_mark = (balanced[0], MarkMatch("meta mark", 256, 0xFFFFFFFF), *balanced[1:])
    plan = planned(sandbox=(MARKING, RETURN_CHAIN, XtChain("nat", "POSTROUTING", (balanced, by_mark), "ACCEPT")))
    with private_netns(with_tables=False) as node, node.enter(), closing(LinuxKernel(tmp_path)) as kernel:
        assert kernel.capabilities().iptables != ""
        assert kernel.apply(diff(NodePlan(), plan)) == ()
        assert diff(kernel.read(plan), plan) == ()
        saved = f"iptables-{kernel.capabilities().iptables}-save"
        assert "-A POSTROUTING -d 10.0.0.0/24 -m mark --mark 0x100 -m ipvs --ipvs -j SNAT --to-source 10.0.0.2" in kernel_save(
            kernel, saved
        )
        kernel.apply(diff(kernel.read(NodePlan()), NodePlan()))
        assert kernel.read(NodePlan()) == NodePlan()


class TestNft(OnLinux):
    VARIANT = "nft"

    def test_tells_what_others_change_and_not_what_we_do(self, kernel: Kernel) -> None:
        changes: list[None] = []
        kernel.watch(lambda: changes.append(None))
        self.build(kernel)
        self.do(kernel, Change(HOST, INGRESS, TWO_PORTS), Change(HOST, TWO_PORTS, INGRESS))
        assert changes == []
        self.iptables("-t", "nat", "-F", "DOCKER-INGRESS")
        wait_until(lambda: changes, what="a word about the change")
        assert diff(kernel.read(PLAN), PLAN) == (Change(HOST, replace(INGRESS, rules=()), INGRESS),)

    def test_a_table_that_iptables_can_not_show_is_left_alone_in_a_namespace_of_ours(
        self, kernel: Kernel, tmp_path: Path
    ) -> None:
        enter = ("nsenter", f"--net={kernel.netns_path(SANDBOX)}")
        chain = "table ip filter { chain INPUT { type filter hook input priority 5; ip ttl 3 drop; }; }"
        subprocess.run((*enter, "nft", chain), check=True)
        assert "incompatible" in kernel_save(kernel, self.save)
        with closing(LinuxKernel(tmp_path / "run")) as restarted:
            assert diff(restarted.read(EMPTY), EMPTY) == ()


class TestLegacy(OnLinux):
    VARIANT = "legacy"
