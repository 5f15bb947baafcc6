"""IPVS that is not loaded yet: who does not need it leaves it so; who does gets all of it from nothing."""

import ctypes
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from routemesh.diff import diff
from routemesh.doctor.machine import findings
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.netlink import ipvs
from routemesh.names import SANDBOX
from routemesh.nodeplan import HOST, Create, Delete, Netns, NodePlan
from routemesh.sight import machine
from tests.kernel.private import private_netns
from tests.kernel.test_ipvs import MADE, PLAN
from tests.uml import modules

_DELETE_MODULE = 176  # x86_64
_MODPROBE = Path("/proc/sys/kernel/modprobe")
_libc = ctypes.CDLL(None, use_errno=True)

LOADER = """
import sys
from tests.uml import modules
asked = sys.argv[-1]
with open({log!r}, "a") as log:
    print(asked, file=log)
modules.load(["ip_vs" if asked.endswith("family-IPVS") else asked])
"""


def loaded() -> list[str]:
    return [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]


def unload(name: str) -> None:
    if _libc.syscall(_DELETE_MODULE, name.encode(), os.O_NONBLOCK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


@pytest.fixture
def asked_for(tmp_path: Path) -> Iterator[Path]:
    """The file that lists the modules which the kernel asked for: it starts without any of IPVS, and finds all."""
    log, program, before = tmp_path / "asked for", tmp_path / "modprobe", _MODPROBE.read_text()
    log.touch()
    command = shlex.join((sys.executable, "-c", LOADER.format(log=str(log))))
    program.write_text(f'#!/bin/sh\ncd {shlex.quote(os.getcwd())} && exec {command} "$@"\n')
    program.chmod(0o755)
    try:
        for name in ("xt_ipvs", *(name for name in loaded() if name.startswith("ip_vs_")), "ip_vs"):
            unload(name)
        _MODPROBE.write_text(str(program))
        yield log
    finally:
        _MODPROBE.write_text(before)
        modules.load(modules.NETWORK)


@pytest.fixture
def kernel(asked_for: Path, tmp_path: Path) -> Iterator[LinuxKernel]:
    with private_netns(with_tables=False) as node, node.enter(), closing(LinuxKernel(tmp_path / "run")) as kernel:
        try:
            yield kernel
        finally:
            kernel.apply([Delete(HOST, Netns(SANDBOX))])


def of_ipvs(asked_for: Path) -> list[str]:
    return [name for name in asked_for.read_text().split() if "ip_vs" in name or "IPVS" in name]


def test_settings_and_services_come_with_the_module(kernel: LinuxKernel, asked_for: Path) -> None:
    assert not ipvs.is_loaded()
    assert diff(kernel.read(PLAN), PLAN) == diff(NodePlan(), PLAN)
    assert of_ipvs(asked_for) == [], "to read loads nothing"
    failures = kernel.apply(diff(NodePlan(), PLAN))
    assert failures == (), [str(failure) for failure in failures]
    assert diff(kernel.read(PLAN), PLAN) == ()
    assert of_ipvs(asked_for) == ["net-pf-16-proto-16-family-IPVS", "ip_vs_rr", "ip_vs_sh"]


def test_who_does_not_want_it_does_not_get_it(kernel: LinuxKernel, asked_for: Path) -> None:
    kernel.apply([Create(HOST, Netns(SANDBOX))])
    assert kernel.read(MADE) == MADE
    kernel.capabilities()
    findings(machine.machine())
    kernel.apply([Delete(HOST, Netns(SANDBOX))])
    assert not ipvs.is_loaded()
    assert of_ipvs(asked_for) == []
