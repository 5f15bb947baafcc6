"""`routemesh node`, `network`, `plan` and `diff` from the words typed to the lines printed."""

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from routemesh import names
from routemesh.cli.main import main
from routemesh.errors import Conflict, Unavailable, UserError
from routemesh.model import Role, TaskState, TaskStatus
from routemesh.nodeplan import Address, Create
from routemesh.options import EtcdCluster, Keys, NodeOptions, Place, SqliteFile, place
from routemesh.values import replace
from tests.simulation import WEB
from tests.unit.daemon import NOW, Daemon, Type, cluster, typist


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2"), busy=True) as daemons:
        yield daemons


@pytest.fixture
def type_(nodes: list[Daemon], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(nodes[0].socket, capfd, monkeypatch)


# --- node --------------------------------------------------------------------------------------------------------


def test_node_ls(type_: Type, nodes: list[Daemon]) -> None:
    nodes[0].run(nodes[0].store.renew("leader", nodes[1].node_id, 1e9))
    assert type_("node", "ls")[1] == (
        "ID           HOSTNAME   ADDRESS          STATUS   AVAILABILITY   MANAGER STATUS   ENGINE     ERROR\n"
        "id-node1 *   node1      192.168.200.10   Ready    Active         Reachable        nftables\n"
        "id-node2     node2      192.168.200.11   Ready    Active         Leader           nftables\n"
    )
    assert type_("node", "ls", "-q")[1] == "id-node1\nid-node2\n"
    assert [each["name"] for each in json.loads(type_("node", "ls", "--format", "json")[1])] == ["node1", "node2"]


def test_node_ls_shows_what_the_kernel_refused(type_: Type, nodes: list[Daemon]) -> None:
    nodes[1].fault("ip link add vxlan0: not permitted")
    assert type_("node", "ls")[1].splitlines()[2].endswith("nftables   ip link add vxlan0: not permitted")


def test_node_inspect_has_a_line_for_each_failure(type_: Type, nodes: list[Daemon]) -> None:
    nodes[1].fault("ip link add vxlan0: not permitted", "nft add table ip routemesh: no room")
    pretty = type_("node", "inspect", "--pretty", "node2")[1]
    assert "failures:\n  - ip link add vxlan0: not permitted\n  - nft add table ip routemesh: no room\n" in pretty


def test_node_update_and_inspect(type_: Type) -> None:
    words = ["--availability", "drain", "--role", "worker", "--label-add", "disk=fast", "--label-add", "a=b", "node2"]
    assert type_("node", "update", *words) == (0, "node2\n", "")
    assert type_("node", "update", "--label-rm", "a", "node2") == (0, "node2\n", "")
    status, out, _ = type_("node", "inspect", "node2", "self")
    second, asked = json.loads(out)
    assert (status, second["availability"], second["role"], second["labels"]) == (0, "drain", "worker", {"disk": "fast"})
    assert asked["name"] == "node1"
    assert "availability: drain\n" in type_("node", "inspect", "--pretty", "node2")[1]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("update node9 --role worker", 1, "routemesh: no node named 'node9'; nodes are: node1, node2"),
        ("update node1 --label-rm x", 1, "routemesh: node node1 has no label 'x'; its labels are: none"),
        ("update node1 --availability off", 2, "invalid value for '--availability': 'off' is not one of active, pause, drain"),
        ("inspect node9", 1, "routemesh: no node named 'node9'; nodes are: node1, node2"),
        ("--name x", 2, "routemesh node: the daemon needs --advertise ADDRESS"),
        ("--advertise here", 2, "invalid value for '--advertise': 'here' is not an IPv4 address"),
        ("--advertise 10.0.0.1 --engine magic", 2, "invalid value for '--engine': 'magic' is not one of"),
        (
            "--advertise 10.0.0.1 --ingress-subnet 10.0.0.1/24",
            2,
            "'10.0.0.1/24' is not an IPv4 network: 10.0.0.1/24 has host bits set",
        ),
        ("--advertise 10.0.0.1 --role boss", 2, "'boss' is not one of manager, worker"),
    ],
)
def test_wrong_words_about_nodes(type_: Type, words: str, status: int, message: str) -> None:
    found, _, err = type_("node", *words.split())
    assert found == status
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeOptions]:
    """The options of the daemons that were started, none of which ran."""
    found: list[NodeOptions] = []
    monkeypatch.setattr("routemesh.start.run", found.append)
    return found


def test_the_daemon_gets_its_options(started: list[NodeOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "--name a --advertise 192.0.2.1 --store sqlite:/x --run-dir run --data-dir /data --engine nftables --role worker "
        "--label disk=fast --label x --ingress-subnet 10.1.0.0/16 --gwbridge-subnet 172.20.0.0/16"
    )
    assert main(["node", *words.split()]) == 0
    assert started == [
        NodeOptions(
            name="a",
            advertise=IPv4Address("192.0.2.1"),
            store="sqlite:/x",
            run_dir=tmp_path / "run",
            data_dir=Path("/data"),
            engine="nftables",
            role=Role.WORKER,
            labels={"disk": "fast", "x": ""},
            ingress_subnet=IPv4Network("10.1.0.0/16"),
            gwbridge_subnet=IPv4Network("172.20.0.0/16"),
        )
    ]
    assert started[0].socket == tmp_path / "run" / "routemesh.sock"


def test_the_daemons_defaults(started: list[NodeOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "thishost")
    assert main(["node", "--advertise", "192.0.2.1"]) == 0
    assert started == [NodeOptions(name="thishost", advertise=IPv4Address("192.0.2.1"))]
    assert started[0].socket == Path("/run/routemesh/routemesh.sock")


def test_a_daemon_that_can_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: NodeOptions) -> None:
        raise ExceptionGroup("loops", [ExceptionGroup("api", [Unavailable("can't listen on\n/x")]), Conflict("other")])

    monkeypatch.setattr("routemesh.start.run", run)
    assert main(["node", "--advertise", "192.0.2.1"]) == 1
    assert capsys.readouterr().err == "routemesh: can't listen on /x\n"


def test_a_bug_in_the_daemon_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: NodeOptions) -> None:
        raise ExceptionGroup("loops", [Unavailable("can't listen"), ZeroDivisionError()])

    monkeypatch.setattr("routemesh.start.run", run)
    with pytest.raises(ExceptionGroup):
        main(["node", "--advertise", "192.0.2.1"])


# --- container ---------------------------------------------------------------------------------------------------


def test_container_ls_shows_the_tasks_of_the_asked_node_alone(type_: Type, nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(replace(WEB, command=("routemesh", "whoami", "--name", "web")))
    state = nodes[0].settle()
    (task,) = (task for task in state.tasks.values() if task.node_id == "id-node1")
    netns = names.container_id(task.id)
    status, out, _ = type_("container", "ls", "-a")
    headings, row = out.splitlines()
    assert (status, headings.split()) == (0, ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"])
    assert row.startswith(f'{netns}   host    "routemesh whoami --…"')
    assert row.endswith(f"80/tcp   web.{task.slot}.{task.id[:12]}")
    assert "Up " in row
    assert names.SANDBOX_CONTAINER not in out
    assert type_("container", "ls", "-q")[1] == f"{netns}\n"
    assert [each["container"] for each in json.loads(type_("container", "ls", "--format", "json")[1])] == [netns]


def test_container_ls_shows_what_has_ended_only_when_asked(type_: Type, nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(WEB)
    (task,) = (task for task in nodes[0].settle().tasks.values() if task.node_id == "id-node1")
    nodes[0].report(task.id, TaskStatus(state=TaskState.FAILED, at=NOW, exit_code=7))
    assert names.container_id(task.id) not in type_("container", "ls", "-q")[1]
    (row,) = (line for line in type_("container", "ls", "-a")[1].splitlines() if line.startswith(names.container_id(task.id)))
    assert "Exited (7)" in row


# --- network, plan, diff -----------------------------------------------------------------------------------------


def test_network_ls(type_: Type, nodes: list[Daemon]) -> None:
    bridge, ingress = (str(network["Id"]) for network in nodes[0].client.networks())
    assert type_("network", "ls")[1] == (
        "NETWORK ID     NAME              DRIVER    SCOPE\n"
        f"{bridge[:12]}   docker_gwbridge   bridge    local\n"
        f"{ingress[:12]}   ingress           overlay   swarm\n"
    )
    assert type_("network", "ls", "-q", "--no-trunc")[1] == f"{bridge}\n{ingress}\n"
    assert [each["Name"] for each in json.loads(type_("network", "ls", "--format", "json")[1])] == ["docker_gwbridge", "ingress"]


def test_network_inspect(type_: Type) -> None:
    status, out, err = type_("network", "inspect", "docker_gwbridge", "ingress")
    assert (status, err) == (0, "")
    assert [each["Containers"]["ingress-sbox"]["Name"] for each in json.loads(out)] == [
        "gateway_ingress-sbox",
        "ingress-endpoint",
    ]
    assert json.loads(type_("network", "inspect", "-v", "ingress")[1])[0]["Services"] == {}
    assert type_("network", "inspect", "bridge") == (
        1,
        "[]\n",
        "routemesh: no network named 'bridge'; networks are: docker_gwbridge and ingress\n",
    )


def test_plan(type_: Type) -> None:
    type_("service", "create", "--name", "web", "--mode", "global", "-p", "8080:80", "host", "x")
    for node in ("node1", "node2"):
        status, out, err = type_("plan", node)
        assert (status, err) == (0, "")
        titles = [line for line in out.splitlines() if line.startswith("# ")]
        assert titles[0] == f"# the namespace of {node} itself"
        assert f"# nft list ruleset, in the namespace of {node} itself" in titles
        assert "# namespace ingress_sbox" in titles
        assert "\nip address add 172.18.0.1/16 dev docker_gwbridge\n" in out
        assert "\ttcp . 8080," in out
    found = json.loads(type_("plan", "node1", "--format", "json")[1])
    assert {"item": "Netns", "name": "ingress_sbox"} in found["namespaces"][0]["items"]


def test_plan_of_a_node_with_iptables(type_: Type, nodes: list[Daemon]) -> None:
    type_("service", "create", "--name", "web", "--mode", "global", "-p", "8080:80", "host", "x")
    name = nodes[1].node_id
    nodes[1].run(
        nodes[1].store.update(lambda old: replace(old, nodes={**old.nodes, name: replace(old.nodes[name], engine="ipvs")}))
    )
    out = type_("plan", "node2")[1]
    assert "table bridge " in out and "table ip " not in out
    own, sandbox, *_ = out.split("# iptables-save, in ")[1:]
    assert own.startswith("the namespace of node2 itself\n*mangle\n:PREROUTING ACCEPT [0:0]\n")
    assert "\n-A DOCKER-INGRESS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080\n" in own
    assert "\n-A PREROUTING -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x100/0xffffffff\n" in sandbox


def test_diff_tells_by_its_status(type_: Type, nodes: list[Daemon]) -> None:
    assert type_("diff", "node2") == (0, "no difference\n", "")
    assert json.loads(type_("diff", "node2", "--format", "json")[1]) == {"node": "node2", "ops": []}
    nodes[1].ops = (Create("", Address("docker_gwbridge", IPv4Interface("172.18.0.1/16"))),)
    assert type_("diff", "node2") == (3, "ip address add 172.18.0.1/16 dev docker_gwbridge\n", "")
    status, out, _ = type_("diff", "node2", "--format", "json")
    assert (status, json.loads(out)["ops"][0]["kind"]) == (3, "create")


def test_a_node_that_does_not_exist_or_answer(type_: Type, nodes: list[Daemon]) -> None:
    nodes[1].socket.unlink()
    for command in ("plan", "diff"):
        assert type_(command, "node9") == (1, "", "routemesh: no node named 'node9'; nodes are: node1, node2\n")
        status, out, err = type_(command, "node2")
        assert (status, out, len(err.splitlines())) == (1, "", 1)
        assert err.startswith("routemesh: node node2's daemon can't be asked at unix://")


def test_the_daemon_gets_its_keys_to_etcd(started: list[NodeOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "--advertise 192.0.2.1 --store etcd://h1,[2001:db8::1]:23790,10.0.0.3:2379/prod/mesh --store-ca ca.pem --store-cert /c "
        "--store-key /k --store-user mesh --store-password-file /p"
    )
    assert main(["node", *words.split()]) == 0
    keys = Keys(ca=tmp_path / "ca.pem", certificate=Path("/c"), key=Path("/k"), user="mesh", password=Path("/p"))
    endpoints = ("h1:2379", "[2001:db8::1]:23790", "10.0.0.3:2379")
    assert started[0].place == EtcdCluster(endpoints, "/prod/mesh", keys)


@pytest.mark.parametrize(
    ("store", "found"),
    [
        ("sqlite:/x/y.db", SqliteFile(Path("/x/y.db"))),
        ("/x/y.db", SqliteFile(Path("/x/y.db"))),
        ("etcd://h", EtcdCluster(("h:2379",), "/routemesh")),
        ("etcd://h/", EtcdCluster(("h:2379",), "/routemesh")),
    ],
)
def test_a_store_is_a_file_or_an_etcd_cluster(store: str, found: Place) -> None:
    assert place(store) == found


@pytest.mark.parametrize(
    ("store", "keys", "message"),
    [
        ("consul://h", Keys(), "is of no kind that there is; use sqlite:PATH or etcd://HOST:PORT,HOST:PORT/PREFIX"),
        ("sqlite:/x", Keys(user="u"), "is a file, which takes no certificates and no user: leave out --store-ca and the like"),
        ("etcd://", Keys(), "'' is no HOST or HOST:PORT"),
        ("etcd://h1,,h2", Keys(), "'' is no HOST or HOST:PORT"),
        ("etcd://h:0", Keys(), "'h:0' is no HOST or HOST:PORT"),
        ("etcd://h:65536", Keys(), "'h:65536' is no HOST or HOST:PORT"),
        ("etcd://user@h", Keys(), "'user@h' is no HOST or HOST:PORT"),
        ("etcd://h/a//b", Keys(), "'a//b' is no prefix"),
        ("etcd://h/../b c", Keys(), "'../b c' is no prefix"),
        ("etcd://h", Keys(certificate=Path("/c")), "--store-cert and --store-key belong together; give both or neither"),
        ("etcd://h", Keys(user="u"), "--store-user and --store-password-file belong together; give both or neither"),
    ],
)
def test_what_is_no_store_is_told_so(store: str, keys: Keys, message: str) -> None:
    with pytest.raises(UserError, match=f"^store '{re.escape(store)}'.*{re.escape(message)}"):
        place(store, keys)
