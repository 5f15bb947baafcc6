"""Where only the engine ipvs works, doctor says so, and loads nothing to find it out."""

import json
import subprocess
import sys
from pathlib import Path

from routemesh.doctor import Finding, Severity
from routemesh.doctor.disks import findings as disk_doctor
from routemesh.doctor.facts import Facts, NodeFacts
from routemesh.sight.disks import disks


def test_doctor_names_the_engine_that_works_here() -> None:
    loaded = Path("/proc/modules").read_text()
    command = (sys.executable, "-m", "routemesh", "doctor", "--machine", "--format", "json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert (found["engine nftables"]["state"], found["engine ipvs"]["state"]) == ("wrong", "ok")
    assert found["engine nftables"]["fix"] == "see below, or use --engine ipvs"
    assert found["nf_tables ip"]["effect"] == "no rules for IPv4"
    assert found["IPVS schedulers"]["found"] == "rr, wrr, lc, wlc, sh, mh, sed, nq"
    assert found["iptables"]["found"] == "legacy"
    assert module_names(Path("/proc/modules").read_text()) == module_names(loaded)


def test_a_read_only_file_system_is_writable_again_by_what_doctor_prints(tmp_path: Path) -> None:
    subprocess.run(("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path), check=True)
    try:
        (found,) = disk_findings(tmp_path)
        looked, mending = found.fix.removeprefix("on node1: ").split(", then ")
        assert (found.state, looked) == (Severity.WRONG, "see why (dmesg)")
        for command in ("dmesg", mending):
            subprocess.run(("bash", "-c", command), check=True, capture_output=True)
        assert disk_findings(tmp_path) == []
    finally:
        subprocess.run(("umount", tmp_path), check=True)


def disk_findings(path: Path) -> list[Finding]:
    return list(disk_doctor(Facts(nodes={"node1": NodeFacts(node="node1", disks=tuple(disks([path])))})))


def module_names(listing: str) -> list[str]:
    return sorted(line.split()[0] for line in listing.splitlines())
