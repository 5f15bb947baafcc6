"""The lab's fixtures, with the ipvs engine."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.support import unique


@pytest.fixture(scope="session")
def mesh() -> Iterator[Cluster]:
    """Three nodes that balance by IPVS, for all tests that leave them as they find them."""
    cluster = Cluster(unique("ipvs"))
    cluster.lab("up", "--engine", "ipvs")
    try:
        yield cluster
    finally:
        cluster.lab("down")
