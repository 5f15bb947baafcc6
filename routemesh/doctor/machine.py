"""What a machine's kernel and programs offer, and what each missing thing costs. PURE.

FEATURES, SCHEDULERS and PROGRAMS say what is worth looking for; a Machine is what was found of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from routemesh.doctor import Finding, State
from routemesh.model import Scheduler

Engine = Literal["nftables", "ipvs"]
ENGINES: tuple[Engine, ...] = ("nftables", "ipvs")
"""The default comes first."""

Presence = Literal["built in", "loaded", "can be loaded", "there", "missing", "not known"]
"""Of a part of the kernel. `there`: it answers, and how it came there can't be told. `not known`: asking would load it."""


Variant = Literal["nft", "legacy"]
"""Of iptables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A part of the kernel: the module that it is in ("" for none), its option CONFIG_…, who needs it, what is lost otherwise."""

    name: str
    module: str
    option: str
    needed_by: tuple[Engine, ...] = ENGINES
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program: the Debian package that has it, who needs it, what is lost without it."""

    name: str
    package: str
    needed_by: tuple[Engine, ...] = ()
    without: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was found: FEATURES and SCHEDULERS by name, the paths of PROGRAMS, the variants of iptables that work."""

    kernel: str
    """Its release."""
    features: Mapping[str, Presence]
    programs: Mapping[str, str]
    iptables: tuple[Variant, ...]
    libnftables: bool
    bridge_netfilter: bool


NAMESPACES = "network namespaces"
_NFTABLES: tuple[Engine, ...] = ("nftables",)
_IPVS: tuple[Engine, ...] = ("ipvs",)

SCHEDULERS: tuple[Feature, ...] = tuple(
    Feature(name=scheduler, module=f"ip_vs_{scheduler}", option=f"IP_VS_{scheduler.upper()}", needed_by=(), without="")
    for scheduler in Scheduler
    if scheduler is not Scheduler.RANDOM
)
"""IPVS's, by the names that they have there."""

FEATURES: tuple[Feature, ...] = (
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
        name="nf_conntrack zones", module="", option="NF_CONNTRACK_ZONES", needed_by=_NFTABLES,
        without="clients with the same port through two nodes get mixed up",
    ),
    Feature(name="nf_tables ip", module="nf_tables", option="NF_TABLES_IPV4", needed_by=_NFTABLES, without="no rules for IPv4"),
    Feature(
        name="nf_tables netdev", module="nf_tables", option="NF_TABLES_NETDEV", needed_by=_NFTABLES,
        without="replies do not find the client's node",
    ),
    Feature(
        name="nf_tables egress", module="", option="NETFILTER_EGRESS", needed_by=_NFTABLES,
        without="replies do not find the client's node",
    ),
    Feature(name="nft_fib", module="nft_fib_ipv4", option="NFT_FIB_IPV4", needed_by=_NFTABLES, without="no port is published"),
    Feature(name="nft_numgen", module="nft_numgen", option="NFT_NUMGEN", needed_by=_NFTABLES, without="nothing is balanced"),
    Feature(
        name="nft_hash", module="nft_hash", option="NFT_HASH", needed_by=(),
        without="no services with routemesh.lb=sh or mh, or with affinity, on engine nftables",
    ),
    Feature(name="ip_vs", module="ip_vs", option="IP_VS", needed_by=_IPVS, without="nothing is balanced by engine ipvs"),
    Feature(
        name="xt_ipvs", module="xt_ipvs", option="NETFILTER_XT_MATCH_IPVS", needed_by=_IPVS,
        without="engine ipvs can't tell what it has balanced",
    ),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (
    Program(name="nsenter", package="util-linux", needed_by=ENGINES, without="no task can be started"),
    Program(name="unshare", package="util-linux", needed_by=ENGINES, without="no task can be started"),
    Program(name="modprobe", package="kmod", without="what of the kernel is not loaded yet can't be"),
    Program(name="ip", package="iproute2", without="links, routes and FDB can't be looked at by hand"),
    Program(name="nft", package="nftables", without="nftables' rules can't be looked at by hand"),
    Program(name="ipvsadm", package="ipvsadm", without="IPVS can't be looked at by hand"),
    Program(name="conntrack", package="conntrack", without="connections can't be looked at by hand"),
    Program(name="tcpdump", package="tcpdump", without="packets can't be looked at by hand"),
    Program(name="haproxy", package="haproxy", without="no gateway with driver haproxy"),
    Program(name="nginx", package="nginx", without="no gateway with driver nginx"),
)
"""Those that are not needed are for people, and for what is not used everywhere."""


def findings(machine: Machine, needed: Engine = ENGINES[0]) -> tuple[Finding, ...]:
    """The engines first, then what they are made of. `needed`: the engine without which something is wrong."""
    parts = (
        *_features(machine, needed), _schedulers(machine), *_libraries(machine, needed), *_programs(machine, needed)
    )  # fmt: skip
    lacking = {
        engine: [part for by, part in parts if engine in by and part.state in (State.WRONG, State.OPTIONAL)] for engine in ENGINES
    }
    works = [engine for engine in ENGINES if not lacking[engine]]
    return (
        *(_engine(engine, lacking[engine], works, needed) for engine in ENGINES),
        *(part for _, part in parts),
        _bridge_netfilter(machine),
    )


_Part = tuple[tuple[Engine, ...], Finding]
"""A finding and the engines that need the thing."""


def _engine(engine: Engine, lacking: Iterable[Finding], works: Sequence[Engine], needed: Engine) -> Finding:
    missing = ", ".join(part.what for part in lacking)
    if not missing:
        return Finding(what=f"engine {engine}", where="this machine", state=State.OK, found="works")
    default = engine == ENGINES[0]
    return Finding(
        what=f"engine {engine}",
        where="this machine",
        state=State.WRONG if engine == needed else State.OPTIONAL,
        found="does not work",
        effect=f"--engine {engine}{' (the default)' if default else ''} is refused: no {missing}",
        fix=f"see below, or use --engine {works[0]}" if works else "see below",
    )


def _missing(needed_by: tuple[Engine, ...], needed: Engine) -> State:
    return State.WRONG if needed in needed_by else State.OPTIONAL


def _features(machine: Machine, needed: Engine) -> Iterator[_Part]:
    where = f"kernel {machine.kernel}"
    for feature in FEATURES:
        found = machine.features[feature.name]
        if found == "missing":
            state, effect, fix = _missing(feature.needed_by, needed), feature.without, _kernel_fix(feature)
        else:
            state, effect, fix = (State.UNKNOWN if found == "not known" else State.OK), "", ""
        yield feature.needed_by, Finding(what=feature.name, where=where, state=state, found=found, effect=effect, fix=fix)


def _schedulers(machine: Machine) -> _Part:
    missing = [each.name for each in SCHEDULERS if machine.features[each.name] == "missing"]
    there = [each.name for each in SCHEDULERS if each.name not in missing]
    # rr is what services have that do not ask for another.
    needed_by = _IPVS if Scheduler.RR in missing else ()
    return needed_by, Finding(
        what="IPVS schedulers",
        where=f"kernel {machine.kernel}",
        state=State.OPTIONAL if missing else State.OK,
        found=", ".join(there) or "missing",
        effect=f"no services with routemesh.lb={', '.join(missing)} on engine ipvs" if missing else "",
        fix=f"install the modules {', '.join(f'ip_vs_{name}' for name in missing)}" if missing else "",
    )


def _kernel_fix(feature: Feature) -> str:
    fix = f"use a kernel with CONFIG_{feature.option}"
    if feature.name == NAMESPACES:
        fix += "; in a container, start that with --privileged"
    elif feature.module:
        fix += f", or install its module {feature.module}"
    return fix


def _libraries(machine: Machine, needed: Engine) -> Iterator[_Part]:
    if machine.libnftables:
        yield _NFTABLES, Finding(what="libnftables", where="libraries", state=State.OK, found="there")
    else:
        yield _NFTABLES, _not_installed("libnftables", "libraries", _NFTABLES, "no rules can be made", "libnftables1", needed)
    if machine.iptables:
        found = " and ".join(machine.iptables)
        yield _IPVS, Finding(what="iptables", where="programs", state=State.OK, found=found)
    else:
        yield _IPVS, _not_installed("iptables", "programs", _IPVS, "engine ipvs can't make its rules", "iptables", needed)


def _programs(machine: Machine, needed: Engine) -> Iterator[_Part]:
    for program in PROGRAMS:
        path = machine.programs.get(program.name)
        if path is None:
            found = _not_installed(program.name, "programs", program.needed_by, program.without, program.package, needed)
        else:
            found = Finding(what=program.name, where="programs", state=State.OK, found=path)
        yield program.needed_by, found


def _not_installed(  # a row of a table
    what: str, where: str, needed_by: tuple[Engine, ...], without: str, package: str, needed: Engine
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
    return Finding(what="br_netfilter", where=f"kernel {machine.kernel}", state=State.OK, found=found)
