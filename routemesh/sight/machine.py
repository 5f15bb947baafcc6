"""Looking at what this machine offers, without loading or changing anything: the facts for doctor.machine.

A part of the kernel is there when it is loaded or built in, and can be when its module is installed. Where the kernel's
configuration and modules can't be read, as in containers, no module can be loaded either, so to ask the kernel is harmless then.

Source: modules.dep(5), kmod's modules.builtin; the kernel's Kconfig files; net/core/rtnetlink.c (__rtnl_newlink),
net/netfilter/nf_conntrack_netlink.c (ctnetlink_parse_zone).
"""

import gzip
import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from ctypes.util import find_library
from errno import EOPNOTSUPP
from pathlib import Path

from routemesh.doctor.machine import NAMESPACES, PROGRAMS, SCHEDULERS, Machine, Presence, Variant, features
from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.kernel.capabilities import BUILT_IN, LOADABLE, has_file, is_loaded, takes_tables, takes_timeouts
from routemesh.kernel.netlink import CREATE, EXCLUSIVE, Message, Requests, attribute, entries, ipvs, nest, text, u8
from routemesh.kernel.netlink.netfilter import BRIDGE, IPV4, NETDEV, NETFILTER
from routemesh.kernel.netlink.numbers.conntrack import Cta, CtaTuple
from routemesh.kernel.netlink.numbers.rtnetlink import Ifla, IflaInfo
from routemesh.plan.engines.entry import Feature
from routemesh.programs import which

_CONFIGS = ("/proc/config.gz", "/boot/config-{release}", "/lib/modules/{release}/config")
_SET = re.compile(r"^CONFIG_(\w+)=([ym])$", re.MULTILINE)
_EGRESS_SINCE = (5, 16)
_NFT_COMPAT = Feature(name="nft_compat", module="nft_compat", option="NFT_COMPAT", without="")
_LEGACY_NAT = Feature(name="iptable_nat", module="iptable_nat", option="IP_NF_NAT", without="")

_NEW_LINK = 16
_LINK_NAME, _LINK_INFO, _LINK_KIND = Ifla.NAME, Ifla.LINKINFO, IflaInfo.KIND
_LINK_HEADER = bytes(16)
_GET_FLOW = 1 << 8 | 1
_ORIGINAL, _ZONE, _TUPLE_IP, _TUPLE_PROTOCOL = Cta.ORIGINAL, Cta.ZONE, CtaTuple.IP, CtaTuple.PROTOCOL


def machine() -> Machine:
    """Look at this machine. Raises Unavailable without the privileges that takes."""
    if os.geteuid() != 0:
        raise Unavailable("to look at what the kernel offers takes root: run it as root (sudo)")
    release = os.uname().release
    config = _config(release)
    features = _features(config)
    programs = {program.name: path for program in PROGRAMS if (path := which(program.name)) is not None}
    return Machine(
        kernel=release,
        features=features,
        programs=programs,
        iptables=_iptables(config, features),
        libnftables=find_library("nftables") is not None,
        bridge_netfilter=Path("/proc/sys/net/bridge").exists(),
    )


def _config(release: str) -> Mapping[str, str]:
    """The options that are y or m; empty where that can't be read."""
    for place in _CONFIGS:
        path = Path(place.format(release=release))
        with suppress(OSError):
            data = path.read_bytes()
            return dict(_SET.findall((gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")))
    return {}


def _features(config: Mapping[str, str]) -> dict[str, Presence]:
    """Where no namespace can be made, nothing else can be tried."""
    everything = (*features(), *SCHEDULERS)
    try:
        with netns.thrown_away():
            return {feature.name: _presence(feature, config) for feature in everything}
    except OSError:
        return {feature.name: "missing" if feature.name == NAMESPACES else "not known" for feature in everything}


def _presence(feature: Feature, config: Mapping[str, str]) -> Presence:
    """By the kernel's configuration; else by the modules there are; else by asking, which can load nothing then."""
    loaded = feature.module != "" and is_loaded(feature.module)
    if config:
        return _configured(feature, config.get(feature.option), loaded=loaded)
    if feature.module and not loaded:
        if has_file(feature.module, BUILT_IN):
            return "built in"
        if has_file(feature.module, LOADABLE):
            return "can be loaded"
    ask = _QUESTIONS.get(feature.name)
    if ask is None:
        return "loaded" if loaded else "not known"
    return "there" if ask() else "missing"


def _configured(feature: Feature, option: str | None, *, loaded: bool) -> Presence:
    if option == "y":
        return "built in"
    if loaded:
        return "loaded"
    return "can be loaded" if option == "m" and feature.module and has_file(feature.module, LOADABLE) else "missing"


def _iptables(config: Mapping[str, str], features: Mapping[str, Presence]) -> tuple[Variant, ...]:
    """The variants that are installed and that the kernel has all for."""
    kernel_has: Mapping[Variant, bool] = {
        "nft": features["nf_tables ip"] != "missing" and _presence(_NFT_COMPAT, config) != "missing",
        "legacy": _presence(_LEGACY_NAT, config) != "missing",
    }
    return tuple(variant for variant, has in kernel_has.items() if has and which(f"iptables-{variant}-restore"))


# --- asking the kernel, in a namespace that is thrown away ---------------------------------------------------------


def _makes_links(kind: str) -> bool:
    """Whether a link of that kind can be made: anything but "not supported" is a yes."""
    info = nest(_LINK_INFO, text(_LINK_KIND, kind))
    message = Message(_NEW_LINK, CREATE | EXCLUSIVE, _LINK_HEADER + text(_LINK_NAME, "probe0") + info)
    with closing(Requests()) as requests:
        (refusal,) = requests.execute([message])
    return refusal is None or refusal.errno != EOPNOTSUPP


def _has_rules() -> bool:
    """Where there is but one table, there are no rules, not even the kernel's own."""
    with closing(Requests()) as requests:
        return requests.dump(*entries.dump_rules()) != []


def _has_zones() -> bool:
    """Whether conntrack knows zones: by asking for an entry in one, which is not there."""
    flow = nest(_ORIGINAL, nest(_TUPLE_IP, attribute(1, bytes(4)), attribute(2, bytes(4))), nest(_TUPLE_PROTOCOL, u8(1, 255)))
    message = Message(_GET_FLOW, 0, IPV4 + flow + attribute(_ZONE, (1).to_bytes(2, "big")))
    with closing(Requests(protocol=NETFILTER)) as requests:
        (refusal,) = requests.execute([message])
    return refusal is None or refusal.errno != EOPNOTSUPP


def _has_egress_hook() -> bool:
    numbers = re.findall(r"\d+", os.uname().release)[:2]
    return tuple(map(int, numbers)) >= _EGRESS_SINCE


_QUESTIONS: Mapping[str, Callable[[], bool]] = {
    NAMESPACES: lambda: True,
    "bridge": lambda: _makes_links("bridge"),
    "veth": lambda: _makes_links("veth"),
    "vxlan": lambda: _makes_links("vxlan"),
    "policy routing": _has_rules,
    "nf_conntrack": lambda: Path("/proc/sys/net/netfilter/nf_conntrack_max").exists(),
    "nf_conntrack zones": _has_zones,
    "nf_tables ip": lambda: takes_tables(IPV4),
    "nf_tables netdev": lambda: takes_tables(NETDEV),
    "nf_tables bridge": lambda: takes_tables(BRIDGE),
    "nf_tables ct timeout": takes_timeouts,
    "nf_tables egress": _has_egress_hook,
    "ip_vs": ipvs.is_loaded,
}
