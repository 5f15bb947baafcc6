"""IPVS: the same tests for the fake and for Linux, and what only the real one can show.

The real half runs where there is ip_vs: here, or in User-Mode Linux.
"""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from routemesh.diff import diff
from routemesh.kernel import Kernel, events
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.netlink.ipvs import Ipvs
from routemesh.language import command
from routemesh.names import SANDBOX
from routemesh.nodeplan import (
    HOST,
    Change,
    Create,
    Delete,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Netns,
    NodePlan,
    Op,
    Sysctl,
    key,
    namespace,
)
from routemesh.values import replace
from tests.kernel.private import Private, private_netns
from tests.support import wait_until

TIMEOUTS = IpvsTimeouts(tcp_s=432_000, tcp_fin_s=120, udp_s=300)
CONNTRACK = Sysctl("net/ipv4/vs/conntrack", "1")
WEB = IpvsService(mark=256, scheduler="rr")
STICKY = IpvsService(mark=0x1F900257, scheduler="sh", persistent_s=300, fallback=True)
FIRST = IpvsDestination(mark=256, address=IPv4Address("10.0.0.8"))
SECOND = IpvsDestination(mark=256, address=IPv4Address("10.0.0.9"), weight=65535)
OTHER = IpvsDestination(mark=STICKY.mark, address=IPv4Address("10.0.0.8"), weight=0)

WANTED = (CONNTRACK, TIMEOUTS, WEB, STICKY, FIRST, SECOND, OTHER)
MADE: NodePlan = NodePlan({HOST: namespace([Netns(SANDBOX)])})


def planned(*items: Item) -> NodePlan:
    return NodePlan({**MADE.namespaces, SANDBOX: namespace(items)})


PLAN = planned(*WANTED)


class IpvsContract(ABC):
    """Every test starts with a kernel in which there is nothing of ours but an empty sandbox."""

    @pytest.fixture
    @abstractmethod
    def kernel(self) -> Iterator[Kernel]:
        """With the sandbox."""

    def do(self, kernel: Kernel, *ops: Op) -> None:
        failures = kernel.apply(ops)
        assert failures == (), [str(failure) for failure in failures]

    def build(self, kernel: Kernel, plan: NodePlan = PLAN) -> None:
        self.do(kernel, *diff(kernel.read(plan), plan))
        assert diff(kernel.read(plan), plan) == ()

    def found(self, kernel: Kernel) -> set[Item]:
        return set(kernel.read(NodePlan()).namespaces.get(SANDBOX, {}).values())

    def test_builds_all_from_nothing_and_leaves_it_alone(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, *diff(MADE, PLAN))
        assert diff(kernel.read(PLAN), PLAN) == ()

    def test_removes_all_and_makes_it_again(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, *diff(kernel.read(PLAN), MADE))
        assert self.found(kernel) == set()
        self.build(kernel)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (WEB, replace(WEB, scheduler="wlc")),
            (WEB, replace(WEB, persistent_s=10)),
            (STICKY, replace(STICKY, persistent_s=0)),
            (STICKY, replace(STICKY, fallback=False)),
            (FIRST, replace(FIRST, weight=0)),
            (FIRST, replace(FIRST, weight=7, method="route")),
            (FIRST, replace(FIRST, method="tunnel")),
            (replace(FIRST, port=80), replace(FIRST, port=80, weight=2)),
        ],
    )
    def test_creates_changes_and_deletes(self, kernel: Kernel, old: Item, new: Item) -> None:
        self.build(kernel)
        others = {item for item in self.found(kernel) if key(item) != key(old) and not goes_with(item, old)}
        for op, present in (
            (Create(SANDBOX, old), {old}),
            (Create(SANDBOX, new), {new}),
            (Change(SANDBOX, new, old), {old}),
            (Change(SANDBOX, old, new), {new}),
            (Delete(SANDBOX, new), set()),
            (Delete(SANDBOX, new), set()),
            (Change(SANDBOX, old, new), {new}),
        ):
            self.do(kernel, op)
            assert {item for item in self.found(kernel) if not goes_with(item, old)} == others | present

    def test_a_service_takes_its_destinations_along(self, kernel: Kernel) -> None:
        self.build(kernel)
        self.do(kernel, Delete(SANDBOX, WEB))
        assert self.found(kernel) == {STICKY, OTHER}
        self.do(kernel, Delete(SANDBOX, FIRST))

    def test_a_destination_without_its_service_is_refused_alone(self, kernel: Kernel) -> None:
        stray = replace(FIRST, mark=999)
        (failure,) = kernel.apply([Create(SANDBOX, item) for item in (WEB, stray, FIRST)])
        assert (failure.op, failure.reason) == (Create(SANDBOX, stray), "there is no service by mark 999")
        assert failure.command.endswith("ipvsadm -a -f 999 -r 10.0.0.8:0 -m -w 1")
        assert self.found(kernel) == {WEB, FIRST}

    def test_reads_timeouts_where_they_are_wanted_and_keeps_them(self, kernel: Kernel) -> None:
        self.build(kernel)
        assert TIMEOUTS not in self.found(kernel)
        shorter = replace(TIMEOUTS, udp_s=30)
        self.do(kernel, Change(SANDBOX, TIMEOUTS, shorter))
        assert diff(kernel.read(PLAN), PLAN) == (Change(SANDBOX, shorter, TIMEOUTS),)
        self.do(kernel, Delete(SANDBOX, shorter))
        assert diff(kernel.read(PLAN), PLAN) == (Change(SANDBOX, shorter, TIMEOUTS),)

    def test_takes_many_at_once(self, kernel: Kernel) -> None:
        services = [replace(WEB, mark=300 + number) for number in range(300)]
        everything: list[Item] = [*services, *(replace(FIRST, mark=service.mark, weight=service.mark) for service in services)]
        stray = Create(SANDBOX, replace(FIRST, mark=999))
        (failure,) = kernel.apply([*(Create(SANDBOX, item) for item in everything), stray])
        assert failure.op == stray
        assert self.found(kernel) == set(everything)
        self.do(kernel, *(Delete(SANDBOX, item) for item in reversed(everything)))
        assert self.found(kernel) == set()


def goes_with(item: Item, service: Item) -> bool:
    return isinstance(service, IpvsService) and isinstance(item, IpvsDestination) and item.mark == service.mark


class TestFakeIpvs(IpvsContract):
    @pytest.fixture
    def kernel(self) -> Iterator[Kernel]:
        kernel = FakeKernel()
        kernel.apply([Create(HOST, Netns(SANDBOX))])
        yield kernel


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Private]:
    """A namespace that plays the node's."""
    with private_netns(with_tables=False) as space, space.enter():
        yield space


@pytest.fixture
def linux(node: Private, tmp_path: Path) -> Iterator[LinuxKernel]:
    with closing(LinuxKernel(tmp_path)) as kernel:
        kernel.apply([Create(HOST, Netns(SANDBOX))])
        try:
            yield kernel
        finally:
            kernel.apply([Delete(HOST, Netns(SANDBOX))])


def has_ip_vs() -> bool:
    return Path("/proc/net/ip_vs").exists()


@pytest.mark.skipif(has_ip_vs(), reason="this kernel has IPVS")
def test_without_ip_vs_nothing_is_read_and_every_wish_refused(linux: LinuxKernel) -> None:
    assert linux.read(PLAN) == MADE
    failures = linux.apply([*(Create(SANDBOX, item) for item in WANTED), *(Delete(SANDBOX, item) for item in WANTED)])
    assert [failure.op for failure in failures] == [Create(SANDBOX, item) for item in WANTED]
    assert {failure.reason for failure in failures[1:]} == {"this kernel has no ip_vs"}
    assert "ipvsadm --set 432000 120 300: this kernel has no ip_vs" in str(failures[1])


@pytest.mark.ip_vs
class TestLinuxIpvs(IpvsContract):
    """On the real kernel, with ipvsadm as a second opinion."""

    @pytest.fixture
    def kernel(self, linux: LinuxKernel) -> Kernel:
        return linux

    @pytest.fixture
    def by_hand(self, kernel: Kernel) -> Callable[[str], str]:
        """Run ipvsadm in the sandbox."""
        inside = ("nsenter", f"--net={kernel.netns_path(SANDBOX)}", "ipvsadm")

        def run(options: str) -> str:
            return subprocess.run((*inside, *options.split()), capture_output=True, text=True, check=True, timeout=30).stdout

        return run

    def test_ipvsadm_sees_what_we_made(self, kernel: Kernel, by_hand: Callable[[str], str]) -> None:
        self.build(kernel)
        assert set(by_hand("-S -n").splitlines()) == {
            "-A -f 256 -s rr",
            "-a -f 256 -r 10.0.0.8:0 -m -w 1",
            "-a -f 256 -r 10.0.0.9:0 -m -w 65535",
            f"-A -f {STICKY.mark} -s sh -p 300 -b sh-fallback",
            f"-a -f {STICKY.mark} -r 10.0.0.8:0 -m -w 0",
        }
        assert "432000 120 300" in by_hand("-L --timeout")

    @pytest.mark.parametrize("item", [WEB, STICKY, FIRST, SECOND, replace(FIRST, method="route"), TIMEOUTS], ids=repr)
    def test_the_command_that_people_are_shown_does_the_same(
        self, kernel: Kernel, by_hand: Callable[[str], str], item: Item
    ) -> None:
        self.build(kernel, planned(WEB, STICKY))
        plan = planned(*{key(each): each for each in (WEB, STICKY, item)}.values())
        if isinstance(item, IpvsService):
            self.do(kernel, Delete(SANDBOX, item))
        for op in (Create(SANDBOX, item), Change(SANDBOX, item, item)):
            by_hand(command(op).partition("ipvsadm ")[2])
            assert diff(kernel.read(plan), plan) == ()
        by_hand(command(Delete(SANDBOX, item)).partition("ipvsadm ")[2])
        assert item not in self.found(kernel)

    @pytest.mark.parametrize(
        ("options", "item"),
        [
            ("-E -f 256 -s rr -o", WEB),
            ("-E -f 256 -s rr -p 300 -M 255.255.255.0", WEB),
            ("-E -f 256 -s sh -b sh-port", WEB),
            ("-e -f 256 -r 10.0.0.8:0 -m -x 10", FIRST),
        ],
    )
    def test_what_others_set_is_put_right(self, kernel: Kernel, by_hand: Callable[[str], str], options: str, item: Item) -> None:
        self.build(kernel)
        before = by_hand("-S -n")
        by_hand(options)
        (op,) = diff(kernel.read(PLAN), PLAN)
        assert isinstance(op, Change) and op.new == item
        self.do(kernel, op)
        assert by_hand("-S -n") == before

    def test_services_of_others_are_left_alone(self, kernel: Kernel, by_hand: Callable[[str], str], node: Private) -> None:
        by_hand("-A -t 10.0.0.7:80 -s wrr")
        by_hand("-a -t 10.0.0.7:80 -r 10.0.0.9:80 -m")
        others = by_hand("-S -n")
        node.run("ipvsadm", "-A", "-f", "256", "-s", "wrr")
        self.build(kernel)
        self.do(kernel, *diff(kernel.read(PLAN), MADE))
        assert by_hand("-S -n") == others
        assert node.run("ipvsadm", "-S", "-n") == "-A -f 256 -s wrr\n"

    def test_what_a_task_balances_in_its_own_namespace_is_its_own(self, kernel: Kernel) -> None:
        self.do(kernel, Create(HOST, Netns("task")))
        inside = ("nsenter", f"--net={kernel.netns_path('task')}", "ipvsadm")
        subprocess.run((*inside, "-A", "-f", "256", "-s", "rr"), check=True, timeout=30)
        assert "task" not in kernel.read(NodePlan()).namespaces
        self.do(kernel, Delete(HOST, Netns("task")))

    def test_what_others_do_is_noticed_soon_and_what_we_do_is_not(
        self, kernel: Kernel, by_hand: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "GLANCE_S", 0.05)
        glances: list[bool] = []
        has_changed = Ipvs.has_changed

        def glance(ipvs: Ipvs) -> bool:
            glances.append(has_changed(ipvs))
            return glances[-1]

        monkeypatch.setattr(Ipvs, "has_changed", glance)
        changes: list[None] = []
        kernel.watch(lambda: changes.append(None))
        self.build(kernel)
        self.do(kernel, Change(SANDBOX, FIRST, replace(FIRST, weight=3)))
        seen = len(glances)
        wait_until(lambda: len(glances) > seen + 1, what="two glances")
        assert changes == [] and not any(glances)
        by_hand("-e -f 256 -r 10.0.0.8:0 -m -w 4")
        wait_until(lambda: changes, what="a word about the change")

    def test_an_unknown_scheduler_is_refused_by_name(self, kernel: Kernel) -> None:
        odd = replace(WEB, mark=300, scheduler="nonesuch")
        for op in (Create(SANDBOX, odd), Change(SANDBOX, WEB, replace(odd, mark=256))):
            self.do(kernel, Create(SANDBOX, WEB))
            (failure,) = kernel.apply([op, Create(SANDBOX, FIRST)])
            assert failure.reason == "this kernel has no scheduler nonesuch (module ip_vs_nonesuch)"
            assert self.found(kernel) == {WEB, FIRST}

    def test_a_kernel_object_without_memory_knows_what_is_ours(self, kernel: Kernel, tmp_path: Path) -> None:
        self.build(kernel)
        with closing(LinuxKernel(tmp_path)) as other:
            assert diff(other.read(PLAN), PLAN) == ()
            assert self.found(other) == {WEB, STICKY, FIRST, SECOND, OTHER}
