"""The lab's fixtures, with the ipvs engine, and the order of the tests."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, running
from tests.uml.machine import is_inside

_TURNS = {"test_ipvs_is_loaded.py": 0, "test_walkthrough_faults.py": 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that unload IPVS go first: the lab that others share would hold it. Those that kill the daemons of one go last."""
    if is_inside():
        items.sort(key=lambda item: _TURNS.get(item.path.name, 1))


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
