"""What the kernel made along with our addresses and namespaces comes back when somebody takes it away."""

from tests.lab.cluster import ADDRESSES, Cluster
from tests.support import wait_until

SANDBOX = "node1/ingress_sbox"


def seen(mesh: Cluster, place: str) -> list[str]:
    """What a person sees, but for broadcast routes, which nobody needs."""
    asked = (("rule",), ("route", "show", "table", "all"), ("-br", "address", "show"))
    lines = [line for what in asked for line in mesh.inside(place, "ip", "-4", *what).splitlines()]
    return sorted(line for line in lines if "broadcast" not in line)


def test_routes_rules_and_lo_come_back_by_themselves(mesh: Cluster) -> None:
    with mesh.service("whole", "-p", "8112:80"):
        (task,) = mesh.serving("whole")
        place = f"{task['node']}/{task['container']}"
        by_hand = (
            ("node1", "route del 172.18.0.0/16 dev docker_gwbridge"),
            ("node1", "route del local 172.18.0.1 dev docker_gwbridge table local"),
            (SANDBOX, "route del 10.0.0.0/24 dev eth0"),
            (SANDBOX, "route del 172.18.0.0/16 dev eth1"),
            (SANDBOX, "rule del pref 0"),
            (place, "route del 10.0.0.0/24 dev eth0"),
            (place, "rule del pref 32766"),
            (place, "link set lo down"),
        )
        before = {where: seen(mesh, where) for where, _ in by_hand}
        for where, text in by_hand:
            mesh.inside(where, "ip", *text.split())
            wait_until(lambda: seen(mesh, where) == before[where], 10, f"what '{text}' took from {where}")  # noqa: B023
        assert mesh.ask(ADDRESSES["node1"], 8112)[0].hostname == task["container"]


def test_a_setting_of_which_the_kernel_tells_nobody_is_back_within_two_seconds(mesh: Cluster) -> None:
    """Without it the node does not answer on its own 127.0.0.1."""
    setting = "net/ipv4/conf/docker_gwbridge/route_localnet"
    with mesh.service("local", "-p", "8115:80"):
        assert mesh.ask("127.0.0.1", 8115, place="node1")
        mesh.inside("node1", "sysctl", "-qw", f"{setting}=0")
        wait_until(lambda: mesh.inside("node1", "sysctl", "-n", setting) == "1\n", 2, "the setting")
        assert mesh.ask("127.0.0.1", 8115, place="node1")
