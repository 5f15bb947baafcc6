"""The registry of engines: one more is one row of it, and nobody else has to know."""

import ast
import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

import routemesh
from routemesh import names
from routemesh.agent.dataplane import Dataplane
from routemesh.cli.main import main
from routemesh.codec.plain import plain, restored
from routemesh.decide import admit
from routemesh.doctor.machine import PROGRAMS, SCHEDULERS, Machine, features, findings
from routemesh.errors import UserError
from routemesh.explain import mend
from routemesh.explain.ask import ask, target
from routemesh.explain.way import Places
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.lab import control
from routemesh.lab.find import Lab
from routemesh.model import Network, NodeId, Protocol, Scheduler, ServiceSpec
from routemesh.nodeplan import HOST, Capabilities, Element, Item, ItemKey, Sysctl
from routemesh.options import NodeOptions
from routemesh.plan import plan
from routemesh.plan.engines import ENGINES, check_engine, nftables
from routemesh.plan.engines.entry import Engine, Feature, Port, Stale, StaleFlows
from routemesh.plan.pools import Pool
from routemesh.plan.view import NodeView, view
from routemesh.snapshot import (
    ClusterSnapshot,
    NamedNetwork,
    NamedNode,
    NamedPort,
    NamedService,
    Names,
    NamespaceSnapshot,
    NodeSnapshot,
)
from routemesh.values import replace
from routemesh.walk import Place
from tests.simulation import WEB, Simulation

CAPS = Capabilities(nf_tables=True, ip_vs=True, kernel="6.18.0", iptables="nft")
MARKER = Sysctl("net/ipv4/ip_forward", "1")
NODE1 = NodeId("id-node1")


class Clients:
    """Remembers clients by one element in the sandbox."""

    def learns(self, sandbox: Iterable[Item]) -> bool:
        """As entry.Clients."""
        return any(item == MARKER for item in sandbox)

    def remembered(self, sandbox: Iterable[Item]) -> Set[ItemKey]:
        """As entry.Clients."""
        return frozenset()

    def outdated(self, sandbox: Iterable[Item], learned: Iterable[Element]) -> tuple[Element, ...]:
        """As entry.Clients."""
        return (Element("ip", "invented", (1,), 2),)


class Mend:
    """Mends by words that no engine of ours uses."""

    def to_sandbox(self, port: Port, sandbox: IPv4Address) -> str:
        """As entry.Mend."""
        return f"lead {port.number} to {sandbox}"

    def mark(self, sandbox: Iterable[Item], tasks: Collection[IPv4Address], told: int | None) -> int | None:
        """As entry.Mend."""
        return 7

    def to_balancer(self, port: Port, mark: int) -> str:
        """As entry.Mend."""
        return f"mark {port.number} as {mark}"

    def to_target(self, port: Port, address: IPv4Address, target: int) -> str:
        """As entry.Mend."""
        return f"redirect {port.number} of {address} to {target}"

    def to_task(self, sandbox: Iterable[Item], mark: int, address: IPv4Address) -> str:
        """As entry.Mend."""
        return f"take {address} into {mark}"


def _sandbox(view: NodeView, network: Network, pools: Sequence[Pool], caps: Capabilities) -> Iterator[Item]:
    yield from nftables.sandbox(view, network, pools, caps)
    yield MARKER


def _stale(before: NodeView | None, now: NodeView) -> Iterator[Stale]:
    yield StaleFlows(netns="invented", protocol=Protocol.TCP, keep=())


INVENTED = Engine(
    name="invented",
    schedulers=frozenset({Scheduler.RR}),
    host=nftables.host,
    sandbox=_sandbox,
    tasks=nftables.tasks,
    lacks=lambda caps: "needs a kernel named 6.18.0" if caps.kernel != "6.18.0" else "",
    features=(Feature(name="invention", module="invention", option="INVENTION", without="nothing is invented"),),
    stale=_stale,
    clients=Clients(),
    mend=Mend(),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, INVENTED.name, INVENTED)


def cluster() -> Simulation:
    """One node with the invented engine, and a service."""
    made = Simulation(nodes=1)
    made.state = replace(made.state, nodes={NODE1: replace(made.state.nodes[NODE1], engine=INVENTED.name)})
    made.create(WEB)
    made.settle()
    return made


def test_it_plans_and_is_refused_where_the_kernel_lacks_something() -> None:
    made = plan(view(cluster().state, NODE1), CAPS)
    assert MARKER in made.namespaces[names.SANDBOX].values()
    with pytest.raises(UserError, match=r"^engine 'invented' needs a kernel named 6\.18\.0; use --engine nftables$"):
        check_engine("invented", replace(CAPS, kernel="5.4"))
    with pytest.raises(UserError, match="choose one of: auto, nftables, ipvs, invented"):
        check_engine("unheard-of", CAPS)


def test_its_schedulers_are_what_services_may_ask_for() -> None:
    state = cluster().state
    with pytest.raises(UserError, match=r"engine invented \(of node1\) has no scheduler 'wrr' .* use one of: rr"):
        admit.create_service(state, _by_weight(), 0.0)


def _by_weight() -> ServiceSpec:
    return replace(WEB, name="other", labels={"routemesh.lb": "wrr"}, publish=(replace(WEB.publish[0], published=8081),))


def test_services_are_refused_on_an_engine_that_this_version_does_not_know() -> None:
    state = cluster().state
    state = replace(state, nodes={NODE1: replace(state.nodes[NODE1], engine="of-tomorrow")})
    with pytest.raises(UserError, match="engine of-tomorrow"):
        admit.create_service(state, _by_weight(), 0.0)


def test_the_agent_forgets_connections_and_clients_as_it_says() -> None:
    forgotten: list[object] = []

    class Kernel(FakeKernel):
        def flush_flows(self, netns: str, protocol: Protocol, pool: object, keep: object) -> int:
            forgotten.append((netns, protocol))
            return 0

        def unlearn(self, netns: str, elements: object) -> None:
            forgotten.append((netns, elements))

    async def one_pass() -> None:
        dataplane = Dataplane(Kernel(CAPS), CAPS)
        try:
            await dataplane.apply(view(cluster().state, NODE1), 1)
        finally:
            dataplane.close()

    asyncio.run(one_pass())
    assert forgotten == [("invented", "tcp"), (names.SANDBOX, (Element("ip", "invented", (1,), 2),))]


def snapshot() -> NodeSnapshot:
    """A node with this engine, read."""
    return NodeSnapshot(
        name="node1",
        kind="routemesh",
        engine=INVENTED.name,
        addresses=(IPv4Address("192.0.2.1"),),
        device="eth0",
        namespaces={HOST: NamespaceSnapshot(path=""), names.SANDBOX: NamespaceSnapshot(path="/run/sandbox")},
    )


def test_its_name_travels_in_snapshots() -> None:
    assert restored(NodeSnapshot, plain(snapshot())) == snapshot()


def test_explain_mends_as_it_says() -> None:
    gwbridge = NamedNetwork(name=names.GWBRIDGE, subnet=IPv4Network("172.18.0.0/16"))
    node = NamedNode(name="node1", id="id-node1", address=IPv4Address("192.0.2.1"), ingress_address=None, ready=True, absent="")
    web = NamedService(
        name="web", id="web", vips={}, marks={"": 256}, ports=(NamedPort(protocol=Protocol.TCP, published=8080, target=80),)
    )
    cluster_ = ClusterSnapshot(nodes={"node1": snapshot()}, names=Names(nodes=(node,), networks=(gwbridge,), services=(web,)))
    asked = ask(cluster_, target("node1:8080"), "", None)
    places = Places(cluster_)
    assert mend.to_sandbox(places, asked) == ("lead 8080 to 172.18.0.2",)
    sandbox, task = Place("node1", names.SANDBOX), IPv4Address("10.0.0.8")
    inside = "nsenter --net=/run/sandbox "
    assert mend.to_balancer(places, asked, sandbox) == (f"{inside}mark 8080 as 7",)
    assert mend.to_target(places, asked, sandbox, task, 80) == (f"{inside}redirect 8080 of 10.0.0.8 to 80",)
    assert mend.to_task(places, asked, sandbox, task) == (f"{inside}take 10.0.0.8 into 7",)


def test_doctor_looks_for_what_it_needs_and_says_whether_it_works() -> None:
    assert "invention" in [feature.name for feature in features()]
    there = {feature.name: "there" for feature in (*features(), *SCHEDULERS)}
    whole = Machine(
        kernel="6.18.0",
        features=there,  # type: ignore[arg-type]
        programs={program.name: f"/bin/{program.name}" for program in PROGRAMS},
        iptables=("nft",),
        libnftables=True,
        bridge_netfilter=False,
    )
    assert {each.found for each in findings(whole) if each.what.startswith("engine ")} == {"works"}
    lacking = replace(whole, features={**whole.features, "invention": "missing"})
    found = {each.what: each for each in findings(lacking, INVENTED.name)}
    assert found["engine invented"].effect == "--engine invented is refused: no invention"
    assert found["invention"].state == found["engine invented"].state == "wrong"
    assert found["engine nftables"].found == "works"


def test_the_command_line_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[NodeOptions] = []
    monkeypatch.setattr("routemesh.start.run", started.append)
    assert main(["node", "--name", "a", "--advertise", "192.0.2.1", "--run-dir", str(tmp_path), "--engine", "invented"]) == 0
    assert [options.engine for options in started] == ["invented"]
    assert main(["node", "--help"]) == 0
    assert "[auto|nftables|ipvs|invented]" in capsys.readouterr().out


def test_a_lab_asks_whether_it_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_capabilities", lambda _: replace(CAPS, kernel="5.4"))
    with pytest.raises(UserError, match="engine 'invented' needs a kernel named"):
        control.up(Lab(name="never-made", nodes=1, managers=1, engine="invented", mtu_bytes=1500))


# --- nobody else knows -------------------------------------------------------------------------------------------

_OTHER_MEANINGS = {
    "model.py": "what a node had before there was a choice",
    "doctor/machine.py": "Debian's package",
    "sight/machine.py": "the library",
    "kernel/spaces.py": "an attribute",
    "kernel/tables/nft.py": "a key of libnftables' JSON",
    "language/nftjson.py": "the same",
    "language/xtparse.py": "a match of iptables",
    "explain/shown.py": "a kind of decision",
    "explain/way.py": "the same",
    "explain/nouns.py": "the same",
    "recording/write.py": "Debian's package",
}


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_no_other_module_names_an_engine() -> None:
    root = Path(routemesh.__file__).parent
    registry = root / "plan" / "engines"
    found = {}
    for path in root.rglob("*.py"):
        if registry in path.parents:
            continue
        if lines := [node.lineno for node in _strings(ast.parse(path.read_text())) if node.value in ("nftables", "ipvs")]:
            found[str(path.relative_to(root))] = lines
    assert {name: lines for name, lines in found.items() if name not in _OTHER_MEANINGS} == {}
    assert _OTHER_MEANINGS.keys() == found.keys(), "a file is excused that names none any more"


def _is_engine(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "engine") or (isinstance(node, ast.Name) and node.id == "engine")


def test_nobody_compares_the_name_of_an_engine() -> None:
    """`if node.engine == …` decides by a name that one day is another's."""
    root = Path(routemesh.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        if root / "plan" / "engines" in path.parents or path == root / "doctor" / "machine.py":  # which lists all, one by one
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                found += [f"{path.name}:{node.lineno}" for side in (node.left, *node.comparators) if _is_engine(side)]
    assert found == []
