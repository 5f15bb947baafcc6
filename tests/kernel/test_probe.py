"""Looking at the machine: what is found is so, and nothing is loaded by looking."""

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from routemesh.doctor import report
from routemesh.doctor.machine import SCHEDULERS, features, findings
from routemesh.kernel import capabilities, netns
from routemesh.sight import machine
from tests.support import require

RELEASE = os.uname().release


@pytest.fixture
def kernel_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which nothing but this directory can be read: `config.gz`, and the lists of modules below the release."""
    require("root", "netns")
    (tmp_path / RELEASE).mkdir()
    monkeypatch.setattr(machine, "_CONFIGS", (str(tmp_path / "config.gz"),))
    monkeypatch.setattr(capabilities, "_MODULES", tmp_path)
    monkeypatch.setattr(machine, "is_loaded", lambda name: False)
    monkeypatch.setattr(machine, "_QUESTIONS", {})
    return tmp_path


def write_config(place: Path, *lines: str) -> None:
    (place / "config.gz").write_bytes(gzip.compress("\n".join((*lines, "")).encode()))


def test_what_this_machine_has_is_found_and_nothing_is_loaded_by_it() -> None:
    require("root", "netns")
    loaded = {entry.name for entry in Path("/sys/module").iterdir()}
    found = machine.machine()
    assert {entry.name for entry in Path("/sys/module").iterdir()} == loaded
    assert found.kernel == RELEASE
    for kind in ("bridge", "veth"):
        assert (found.features[kind] != "missing") == can_make_a_link(kind)
    assert found.programs["nsenter"].endswith("/nsenter")


def can_make_a_link(kind: str) -> bool:
    command = ("unshare", "--net", "ip", "link", "add", "probe", "type", kind)
    return subprocess.run(command, capture_output=True).returncode == 0


def test_where_the_default_engine_works_nothing_is_wrong() -> None:
    require("root", "netns", "nf_tables")
    assert report(findings(machine.machine())).outcome != "findings"


def test_the_kernels_configuration_says_what_is_there(kernel_files: Path) -> None:
    write_config(kernel_files, "CONFIG_VETH=y", "CONFIG_IP_VS=m", "CONFIG_IP_VS_RR=m", "# CONFIG_BRIDGE is not set")
    (kernel_files / RELEASE / "modules.dep").write_text("kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/lib/libcrc32c.ko.xz\n")
    found = machine.machine().features
    assert (found["veth"], found["bridge"], found["ip_vs"]) == ("built in", "missing", "can be loaded")
    assert found["rr"] == "missing", "its file is not installed"


def test_without_a_configuration_the_lists_of_modules_do(kernel_files: Path) -> None:
    (kernel_files / RELEASE / "modules.dep").write_text("kernel/net/netfilter/ipvs/ip_vs_rr.ko.zst:\n")
    (kernel_files / RELEASE / "modules.builtin").write_text("kernel/drivers/net/veth.ko\nkernel/net/netfilter/ipvs/ip_vs.ko\n")
    found = machine.machine().features
    assert (found["veth"], found["ip_vs"], found["rr"]) == ("built in", "built in", "can be loaded")
    assert found["wrr"] == "not known"
    assert capabilities.has_ip_vs()


def test_without_both_the_kernel_is_asked(kernel_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_QUESTIONS", {"veth": lambda: True, "bridge": lambda: False})
    found = machine.machine().features
    assert (found["veth"], found["bridge"], found["vxlan"]) == ("there", "missing", "not known")


def test_ip_vs_that_is_nowhere_is_not_there(kernel_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "is_loaded", lambda name: False)
    monkeypatch.setattr("routemesh.kernel.netlink.ipvs.is_loaded", lambda: False)
    (kernel_files / RELEASE / "modules.dep").write_text("kernel/net/netfilter/ipvs/ip_vs_rr.ko:\n")
    assert not capabilities.has_ip_vs()


def test_where_no_namespace_can_be_made_that_is_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    require("root")

    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(netns, "thrown_away", refuse)
    found = dict(machine.machine().features)
    assert found.pop("network namespaces") == "missing"
    assert set(found.values()) == {"not known"}
    assert len(found) == len(features()) + len(SCHEDULERS) - 1


@pytest.mark.parametrize(
    ("question", "holds"),
    [("veth", True), ("vxlan", True), ("policy routing", True), ("nf_conntrack", True)],
)
def test_what_every_kernel_of_the_mesh_has_is_answered(question: str, holds: bool) -> None:
    require("root", "netns")
    with netns.thrown_away():
        assert machine._QUESTIONS[question]() is holds


def test_a_kind_of_link_that_nobody_has_is_missing() -> None:
    require("root", "netns")
    with netns.thrown_away():
        assert not machine._makes_links("nonesuch")
