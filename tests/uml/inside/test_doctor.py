"""Where only the engine ipvs works, doctor says so, and loads nothing to find it out."""

import json
import subprocess
import sys
from pathlib import Path


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


def module_names(listing: str) -> list[str]:
    return sorted(line.split()[0] for line in listing.splitlines())
