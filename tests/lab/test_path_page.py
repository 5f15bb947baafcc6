"""docs/path.md tells what a lab shows."""

from ipaddress import IPv4Address
from pathlib import Path

from routemesh import names
from routemesh.lab.find import NAME_VARIABLE
from tests.lab.cluster import Cluster, running
from tests.support import require
from tests.transcript import write_or_compare

FIRST = IPv4Address("10.0.0.2")
PAGE = Path(__file__).parents[2] / "docs/path.md"


def aliases(cluster: Cluster) -> dict[str, str]:
    """What the page calls this lab and its nodes, which get their overlay addresses in the order in which they join."""
    found = {cluster.name: "lab"}
    for number, info in enumerate(cluster.json("node", "ls")):
        here, of_page = IPv4Address(info["ingress_address"]), FIRST + number
        for spelled in (
            str,
            names.mac,
            lambda address: f"{int(address):#010x}",
            lambda address: f"{int(address):#x}",
            lambda address: str(int(address)),
        ):
            found[spelled(here)] = spelled(of_page)
    return found


def test_every_command_of_the_page_shows_what_the_page_shows() -> None:
    require("root", "netns", "nf_tables", "conntrack", "tcpdump")
    with running("path") as cluster:
        write_or_compare(PAGE, {NAME_VARIABLE: cluster.name}, section="# The path of a packet", aliases=aliases(cluster))
