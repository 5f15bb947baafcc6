"""One lab of three nodes for all tests that leave it as they find it."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster
from tests.support import require, unique


@pytest.fixture(scope="session")
def mesh() -> Iterator[Cluster]:
    """The shared lab."""
    require("root", "netns", "nf_tables")
    cluster = Cluster(unique("mesh"))
    cluster.lab("up")
    yield cluster
    cluster.lab("down")


@pytest.fixture
def own_mesh() -> Iterator[Cluster]:
    """A lab for a test that breaks it."""
    require("root", "netns", "nf_tables")
    cluster = Cluster(unique("own"))
    cluster.lab("up")
    yield cluster
    cluster.lab("down")
