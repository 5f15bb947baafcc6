"""Tests below `inside` run in User-Mode Linux; outside of it an item stands for each and tells what became of it there."""

import pytest

from tests.uml.machine import is_inside
from tests.uml.outer import Outer


def pytest_configure(config: pytest.Config) -> None:
    """Take part in this run; in one that happens inside, tests are tests."""
    if not is_inside():
        config.pluginmanager.register(Outer(config))
