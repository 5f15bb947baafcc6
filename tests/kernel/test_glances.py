"""Settings that are looked at without entering their namespaces."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from routemesh.kernel.glances import MOST_AT_ONCE, Glances
from tests.kernel.private import Private, private_netns
from tests.support import wait_until

BUCKETS, LOCALNET = "net/ipv4/tcp_max_tw_buckets", "net/ipv4/conf/odd.link/route_localnet"


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns(with_tables=False) as made:
        made.run("ip", "link", "add", "odd.link", "type", "bridge")
        yield made


@pytest.fixture
def glances() -> Iterator[Glances]:
    with closing(Glances()) as made:
        yield made


def held(glances: Glances, space: Private, *paths: str, times: int = 1) -> None:
    with space.enter():
        for number in range(times):
            glances.hold(f"{space.name}-{number}", space, paths)


def test_what_others_set_is_seen_once(glances: Glances, space: Private) -> None:
    held(glances, space, BUCKETS, LOCALNET, "net/ipv4/no_such_setting")
    assert not glances.look()
    space.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=77")
    assert [glances.look(), glances.look()] == [True, False]
    space.run("sysctl", "-qw", "net/ipv4/conf/odd.link/route_localnet=1")
    glances.take_as_known(f"{space.name}-0")
    assert not glances.look(), "what we wrote ourselves is no news"


def test_a_device_that_comes_again_is_looked_at_again(glances: Glances, space: Private) -> None:
    held(glances, space, LOCALNET)
    space.run("ip", "link", "delete", "odd.link")
    assert [glances.look(), glances.look()] == [True, False]
    space.run("ip", "link", "add", "odd.link", "type", "bridge")
    held(glances, space, LOCALNET)
    space.run("sysctl", "-qw", "net/ipv4/conf/odd.link/route_localnet=1")
    assert glances.look()


def test_a_thousand_tasks_are_looked_at_within_two_looks(glances: Glances, space: Private) -> None:
    held(glances, space, BUCKETS, times=4 * MOST_AT_ONCE)
    assert not any(glances.look() for _ in range(4))
    space.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=78")
    assert [glances.look(), glances.look(), glances.look()] == [True, True, False]


def test_nothing_is_kept_of_what_is_gone(glances: Glances, space: Private) -> None:
    files = len(os.listdir("/proc/self/fd"))
    with private_netns(with_tables=False) as other:
        held(glances, other, BUCKETS, times=3)
        held(glances, space, BUCKETS)
        assert len(os.listdir("/proc/self/fd")) == files + 4
        inode = other.path.stat().st_ino
    # A namespace that nothing keeps is gone soon, and its settings with it.
    wait_until(lambda: not glances.look() and len(os.listdir("/proc/self/fd")) == files + 1)
    with private_netns(with_tables=False) as another, another.enter():
        glances.hold(f"{space.name}-0", another, [BUCKETS])
        another.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=79")
        assert glances.look(), f"the namespace of that name is another now, whatever its number ({inode})"
