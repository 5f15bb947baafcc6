"""The lab's fixtures, with the ipvs engine, and the order of the tests."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, running
from tests.uml.machine import is_inside

_TURNS = ("test_ipvs_is_loaded.py", "test_walkthrough.py", "test_record.py", "test_walkthrough_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that unload IPVS go first: a lab would hold it. Then those of the smaller lab, which lose its daemons at last.

    All others follow, since the daemons of the larger one take this machine's only processor from whatever runs beside them.
    """
    if is_inside():
        items.sort(key=lambda item: _TURNS.index(item.path.name) if item.path.name in _TURNS else len(_TURNS))


@pytest.fixture(scope="session")
def mesh() -> Iterator[Cluster]:
    """Three nodes that balance by IPVS, for all tests that leave them as they find them."""
    with running("ipvs", "--engine", "ipvs") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def swarm() -> Iterator[Cluster]:
    """Two nodes and the service of the tutorial, 8080 published; the last module that uses them kills their daemons."""
    with running("walk", "--nodes", "2", "--engine", "ipvs") as cluster:
        cluster.cli("service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80", "host", "routemesh", "whoami")
        yield cluster
