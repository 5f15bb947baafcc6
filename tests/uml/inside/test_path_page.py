"""docs/path.md tells what a lab with the ipvs engine shows."""

from routemesh.lab.find import NAME_VARIABLE
from tests.lab.cluster import Cluster
from tests.lab.test_path_page import PAGE, aliases
from tests.transcript import write_or_compare


def test_every_command_of_the_page_shows_what_the_page_shows(mesh: Cluster) -> None:
    section = "# The same path, by iptables and IPVS"
    try:
        write_or_compare(PAGE, {NAME_VARIABLE: mesh.name}, section=section, aliases=aliases(mesh))
    finally:
        mesh.cli("service", "rm", "web")
