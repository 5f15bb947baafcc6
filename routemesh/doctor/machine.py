"""What a machine's kernel and programs offer, and what each missing thing costs. PURE.

features(), SCHEDULERS and PROGRAMS say what is worth looking for; a Machine is what was found of them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from routemesh.doctor import Finding, Severity
from routemesh.model import Scheduler
from routemesh.plan.engines import ENGINES, engine_names
from routemesh.plan.engines.entry import Feature

Presence = Literal["built in", "loaded", "can be loaded", "there", "missing", "not known"]
"""Of a part of the kernel. `there`: it answers, and how it came there can't be told. `not known`: asking would load it."""


Variant = Literal["nft", "legacy"]
"""Of iptables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program: the Debian package that has it, what is lost without it, whether every engine needs it."""

    name: str
    package: str
    without: str
    needed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found: features() and SCHEDULERS by name, the paths of PROGRAMS, the variants of iptables that work."""

    kernel: str
    """Its release."""
    features: Mapping[str, Presence]
    programs: Mapping[str, str]
    iptables: tuple[Variant, ...]
    libnftables: bool
    bridge_netfilter: bool


NAMESPACES = "network namespaces"
_IPVS_SCHEDULERS = "IPVS schedulers"

SCHEDULERS: tuple[Feature, ...] = tuple(
    Feature(name=scheduler, module=f"ip_vs_{scheduler}", option=f"IP_VS_{scheduler.upper()}", without="", needed=False)
    for scheduler in Scheduler
    if scheduler is not Scheduler.RANDOM
)
"""IPVS's, by the names that they have there."""

_COMMON: tuple[Feature, ...] = (
    Feature(name=NAMESPACES, module="", option="NET_NS", without="no sandboxes and no tasks"),
    Feature(name="bridge", module="bridge", option="BRIDGE", without="no docker_gwbridge and no overlay"),
    Feature(name="veth", module="veth", option="VETH", without="no sandbox and no task is connected"),
    Feature(name="vxlan", module="vxlan", option="VXLAN", without="no overlay between nodes"),
    Feature(name="policy routing", module="", option="IP_MULTIPLE_TABLES", without="replies do not find the client's node"),
    Feature(name="nf_conntrack", module="nf_conntrack", option="NF_CONNTRACK", without="no address is translated"),
    Feature(
        name="nf_conntrack netlink", module="nf_conntrack_netlink", option="NF_CT_NETLINK",
        without="clients of tasks that are gone are left in silence",
    ),
    Feature(
        name="nf_tables bridge", module="nf_tables", option="NF_TABLES_BRIDGE", needed=False,
        without="a task can send with the addresses of others",
    ),
)  # fmt: skip
"""What every engine needs."""


def features() -> tuple[Feature, ...]:
    """What is worth looking for in a kernel, besides SCHEDULERS: what all engines need, then what each needs."""
    return (*_COMMON, *(feature for engine in ENGINES.values() for feature in engine.features))


PROGRAMS: tuple[Program, ...] = (
    Program(name="nsenter", package="util-linux", without="no task can be started", needed=True),
    Program(name="unshare", package="util-linux", without="no task can be started", needed=True),
    Program(name="modprobe", package="kmod", without="kernel modules can't be loaded on demand"),
    Program(name="ip", package="iproute2", without="links, routes and FDB can't be looked at by hand"),
    Program(name="nft", package="nftables", without="nftables' rules can't be looked at by hand"),
    Program(name="ipvsadm", package="ipvsadm", without="IPVS can't be looked at by hand"),
    Program(name="conntrack", package="conntrack", without="connections can't be looked at by hand"),
    Program(name="tcpdump", package="tcpdump", without="packets can't be looked at by hand"),
    Program(name="haproxy", package="haproxy", without="no gateway with driver haproxy"),
    Program(name="nginx", package="nginx", without="no gateway with driver nginx"),
)
"""Those that are not needed are for people, and for what is not used everywhere."""


def findings(machine: Machine, needed: str = "") -> tuple[Finding, ...]:
    """The engines first, then what they are made of. `needed`: the engine without which something is wrong ("": the default)."""
    needed = needed or engine_names()[0]
    parts = (
        *_features(machine, needed), _schedulers(machine), *_libraries(machine, needed), *_programs(machine, needed)
    )  # fmt: skip
    lacking = {
        engine: [part for by, part in parts if engine in by and part.state in (Severity.WRONG, Severity.OPTIONAL)]
        for engine in ENGINES
    }
    works = [engine for engine in ENGINES if not lacking[engine]]
    return (
        *(_engine(engine, lacking[engine], works, needed) for engine in ENGINES),
        *(part for _, part in parts),
        _bridge_netfilter(machine),
    )


_Names = Collection[str]
_Part = tuple[_Names, Finding]
"""A finding and the engines that need the thing."""


def _engine(engine: str, lacking: Iterable[Finding], works: Sequence[str], needed: str) -> Finding:
    missing = ", ".join(part.what for part in lacking)
    if not missing:
        return Finding(what=f"engine {engine}", where="this machine", state=Severity.OK, found="works")
    default = engine == engine_names()[0]
    return Finding(
        what=f"engine {engine}",
        where="this machine",
        state=Severity.WRONG if engine == needed else Severity.OPTIONAL,
        found="does not work",
        effect=f"--engine {engine}{' (the default)' if default else ''} is refused: no {missing}",
        fix=f"see below, or use --engine {works[0]}" if works else "see below",
    )


def _missing(needed_by: _Names, needed: str) -> Severity:
    return Severity.WRONG if needed in needed_by else Severity.OPTIONAL


def _features(machine: Machine, needed: str) -> Iterator[_Part]:
    where = f"kernel {machine.kernel}"
    for feature in features():
        found = machine.features[feature.name]
        by = needing(feature)
        if found == "missing":
            state, effect, fix = _missing(by, needed), feature.without, _kernel_fix(feature)
        else:
            state, effect, fix = (Severity.UNKNOWN if found == "not known" else Severity.OK), "", ""
        yield by, Finding(what=feature.name, where=where, state=state, found=found, effect=effect, fix=fix)


def needing(part: Feature | Program) -> _Names:
    """The engines that do not work without it."""
    if isinstance(part, Program):
        return engine_names() if part.needed else _using(part.name)
    if part in _COMMON:
        return engine_names()
    return [name for name, engine in ENGINES.items() if part.needed and part in engine.features]


def _using(name: str) -> _Names:
    """The engines that need a program or a library."""
    return [engine.name for engine in ENGINES.values() if name in engine.programs | engine.libraries]


def _schedulers(machine: Machine) -> _Part:
    missing = [each.name for each in SCHEDULERS if machine.features[each.name] == "missing"]
    there = [each.name for each in SCHEDULERS if each.name not in missing]
    by = _using(_IPVS_SCHEDULERS)
    # rr is what services have that do not ask for another.
    return by if Scheduler.RR in missing else (), Finding(
        what=_IPVS_SCHEDULERS,
        where=f"kernel {machine.kernel}",
        state=Severity.OPTIONAL if missing else Severity.OK,
        found=", ".join(there) or "missing",
        effect=f"no services with routemesh.lb={', '.join(missing)} on engine {' or '.join(by)}" if missing else "",
        fix=f"install the modules {', '.join(f'ip_vs_{name}' for name in missing)}" if missing else "",
    )


def _kernel_fix(feature: Feature) -> str:
    fix = f"use a kernel with CONFIG_{feature.option}"
    if feature.name == NAMESPACES:
        fix += "; in a container, start that with --privileged"
    elif feature.module:
        fix += f", or install its module {feature.module}"
    return fix


def _libraries(machine: Machine, needed: str) -> Iterator[_Part]:
    by = _using("libnftables")
    if machine.libnftables:
        yield by, Finding(what="libnftables", where="libraries", state=Severity.OK, found="there")
    else:
        yield by, _not_installed("libnftables", "libraries", by, "no rules can be made", "libnftables1", needed)
    by = _using("iptables")
    if machine.iptables:
        found = " and ".join(machine.iptables)
        yield by, Finding(what="iptables", where="programs", state=Severity.OK, found=found)
    else:
        without = f"engine {' or '.join(by)} can't make its rules"
        yield by, _not_installed("iptables", "programs", by, without, "iptables", needed)


def _programs(machine: Machine, needed: str) -> Iterator[_Part]:
    for program in PROGRAMS:
        path = machine.programs.get(program.name)
        by = needing(program)
        if path is None:
            found = _not_installed(program.name, "programs", by, program.without, program.package, needed)
        else:
            found = Finding(what=program.name, where="programs", state=Severity.OK, found=path)
        yield by, found


def _not_installed(  # a row of a table
    what: str, where: str, needed_by: _Names, without: str, package: str, needed: str
) -> Finding:
    return Finding(
        what=what,
        where=where,
        state=_missing(needed_by, needed),
        found="missing",
        effect=without,
        fix=f"apt-get install {package}",
    )


def _bridge_netfilter(machine: Machine) -> Finding:
    """Neither way is wrong: plan.layout makes both work."""
    found = "loaded: bridged packets pass the node's rules" if machine.bridge_netfilter else "not loaded"
    return Finding(what="br_netfilter", where=f"kernel {machine.kernel}", state=Severity.OK, found=found)
