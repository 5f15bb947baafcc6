"""docs/path.md tells what a lab shows."""

import re
import sys
from ipaddress import IPv4Address
from pathlib import Path

from routemesh import names
from routemesh.lab.find import NAME_VARIABLE
from tests.lab.cluster import Cluster, running
from tests.support import require
from tests.transcript import write_or_compare

FIRST = IPv4Address("10.0.0.2")
PAGE = Path(__file__).parents[2] / "docs/path.md"


SANDBOX = "nsenter --net=/var/run/docker/netns/ingress_sbox"
INSTEAD = {
    "nft list chain ip routemesh DOCKER-INGRESS": r"dnat to 172\.18\.0\.2",
    "nft list set ip routemesh published": r"tcp \. 8080",
    "ip a": r"docker_gwbridge.* 172\.18\.0\.1/16",
    "routemesh network inspect docker_gwbridge": r"ingress-sbox.*172\.18\.0\.2/16",
    "routemesh container ls -a": r"web\.\d",
    f"{SANDBOX} ip a": r" 172\.18\.0\.2/16",
    f"{SANDBOX} nft list map ip routemesh marks": r"tcp \. 8080 : 0x00000100",
    f"{SANDBOX} nft list map ip routemesh backends": r"0x00000100 \. 0 : 10\.0\.0\.",
    f"{SANDBOX} ip route": r"default via 172\.18\.0\.1 dev eth1",
}
"""What the page says to type instead of a tutorial's commands, and what that shows."""


def test_the_page_says_what_is_tried_here() -> None:
    table = PAGE.read_text().partition("## If you come from a Swarm tutorial")[2].partition("\n# ")[0]
    rows = [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| ") and "`" in line.split("|")[2]]
    assert [row.strip("`") for row in rows] == list(INSTEAD)


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
        for typed, shown in INSTEAD.items():
            words = [*((sys.executable, "-m") if typed.startswith("routemesh") else ()), *typed.split()]
            assert re.search(shown, cluster.cli("lab", "exec", "node1", "--", *words), re.DOTALL), typed
