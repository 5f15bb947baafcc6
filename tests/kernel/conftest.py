"""The two nodes of test_walk, which take long to make, for the files that use them."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.test_walk import SETUPS, Mesh


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Two nodes and a client, as the parameter names them; whoever takes something away puts it back."""
    with ExitStack() as opened:
        yield Mesh(SETUPS[request.param], tmp_path_factory.mktemp("walk"), opened)
