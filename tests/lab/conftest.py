"""One lab of three nodes for all tests that leave it as they find it."""

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, running
from tests.support import require


@pytest.fixture(scope="session")
def mesh() -> Iterator[Cluster]:
    """The shared lab."""
    require("root", "netns", "nf_tables")
    with running("mesh") as cluster:
        yield cluster


@pytest.fixture
def own_mesh() -> Iterator[Cluster]:
    """A lab for a test that breaks it."""
    require("root", "netns", "nf_tables")
    with running("own") as cluster:
        yield cluster
