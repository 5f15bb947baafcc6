"""What `routemesh doctor` makes of what a machine offers."""

import json
from collections.abc import Iterable, Mapping

import msgspec
import pytest
from click.testing import CliRunner

from routemesh.cli.main import cli, main
from routemesh.doctor import Finding, Severity, report
from routemesh.doctor.machine import PROGRAMS, SCHEDULERS, Machine, Presence, features, findings, needing
from routemesh.errors import Unavailable
from routemesh.sight import machine as probe
from routemesh.values import replace

NAMES = [feature.name for feature in (*features(), *SCHEDULERS)]
WHOLE = Machine(
    kernel="6.18.0",
    features=dict.fromkeys(NAMES, "built in"),
    programs={program.name: f"/usr/bin/{program.name}" for program in PROGRAMS},
    iptables=("nft", "legacy"),
    libnftables=True,
    bridge_netfilter=False,
)


def with_features(**changes: Presence) -> Machine:
    return replace(WHOLE, features={**WHOLE.features, **{name.replace("_AND_", " "): found for name, found in changes.items()}})


def is_clean(found: Iterable[Finding]) -> bool:
    return report(found).outcome != "findings"


def about(machine: Machine) -> Mapping[str, Finding]:
    found = {finding.what: finding for finding in findings(machine)}
    assert len(found) == len(findings(machine)), "each thing once"
    return found


def test_nothing_is_said_of_a_machine_that_has_all() -> None:
    for finding in findings(WHOLE):
        assert (finding.state, finding.effect, finding.fix) == (Severity.OK, "", "")
    assert is_clean(findings(WHOLE))
    assert about(WHOLE)["engine nftables"].found == about(WHOLE)["engine ipvs"].found == "works"


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_a_missing_part_of_the_kernel_costs_the_engines_that_need_it(feature: object) -> None:
    (part,) = [each for each in features() if each is feature]
    found = about(replace(WHOLE, features={**WHOLE.features, part.name: "missing"}))
    assert found[part.name].state is (Severity.WRONG if "nftables" in needing(part) else Severity.OPTIONAL)
    assert found[part.name].effect == part.without
    assert f"CONFIG_{part.option}" in found[part.name].fix
    for engine in ("nftables", "ipvs"):
        works = found[f"engine {engine}"].found == "works"
        assert works == (engine not in needing(part))
        assert works or part.name in found[f"engine {engine}"].effect
    assert is_clean(found.values()) == ("nftables" not in needing(part))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_missing_program_is_told_with_its_package(program: object) -> None:
    (part,) = [each for each in PROGRAMS if each is program]
    programs = {name: path for name, path in WHOLE.programs.items() if name != part.name}
    found = about(replace(WHOLE, programs=programs))
    assert found[part.name].fix == f"apt-get install {part.package}"
    assert found[part.name].effect == part.without
    assert is_clean(found.values()) == (not needing(part))


def test_without_ip_vs_only_the_default_engine_works_and_that_is_clean() -> None:
    found = about(replace(with_features(ip_vs="missing"), iptables=()))
    assert is_clean(found.values())
    engine = found["engine ipvs"]
    assert (engine.state, engine.effect) == (Severity.OPTIONAL, "--engine ipvs is refused: no ip_vs, iptables")
    assert engine.fix == "see below, or use --engine nftables"


def test_without_nf_tables_the_other_engine_is_the_way_out() -> None:
    found = about(with_features(nf_tables_AND_ip="missing"))
    engine = found["engine nftables"]
    assert (engine.state, engine.effect) == (Severity.WRONG, "--engine nftables (the default) is refused: no nf_tables ip")
    assert engine.fix == "see below, or use --engine ipvs"
    assert not is_clean(found.values())
    assert not is_clean(findings(replace(WHOLE, libnftables=False)))


def test_schedulers_of_ipvs_are_one_by_one_what_services_may_ask_for() -> None:
    found = about(with_features(sed="missing", nq="missing"))
    schedulers = found["IPVS schedulers"]
    assert schedulers.state is Severity.OPTIONAL
    assert schedulers.found == "rr, wrr, lc, wlc, sh, mh"
    assert schedulers.effect == "no services with routemesh.lb=sed, nq on engine ipvs"
    assert schedulers.fix == "install the modules ip_vs_sed, ip_vs_nq"
    assert found["engine ipvs"].found == "works"
    without_rr = about(with_features(rr="missing"))
    assert without_rr["engine ipvs"].effect == "--engine ipvs is refused: no IPVS schedulers"


def test_what_can_not_be_told_is_neither_good_nor_bad() -> None:
    found = about(with_features(nft_fib="not known"))
    assert found["nft_fib"].state is Severity.UNKNOWN
    assert found["engine nftables"].found == "works" and is_clean(found.values())


@pytest.mark.parametrize(
    ("machine", "status"), [(WHOLE, 0), (with_features(vxlan="missing"), 3), (with_features(ip_vs="missing"), 0)]
)
def test_the_command_prints_the_findings_and_ends_with_3_if_something_is_needed(
    machine: Machine, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "machine", lambda: machine)
    table = CliRunner().invoke(cli, ["doctor", "--machine"])
    assert table.exit_code == status
    for finding in findings(machine):
        assert f"{finding.what} " in table.output and finding.effect in table.output and finding.fix in table.output
    printed = CliRunner().invoke(cli, ["doctor", "--machine", "--format", "json"])
    assert printed.exit_code == status
    told = json.loads(printed.output)
    assert (told["version"], told["outcome"]) == (2, "findings" if status else "clean")
    assert msgspec.convert(told["findings"], list[Finding]) == list(findings(machine))


def test_who_may_not_look_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unavailable):
        probe.machine()
    assert main(["doctor", "--machine"]) == 1
    assert capsys.readouterr().err == "routemesh: to look at what the kernel offers takes root: run it as root (sudo)\n"
