"""What this kernel offers, found out without changing anything: no module is loaded to see whether it could be.

Source: modules.dep(5), kmod's modules.builtin; include/uapi/linux/netfilter/nf_tables.h.
"""

import os
from contextlib import closing
from pathlib import Path

from routemesh.kernel import ipvs
from routemesh.kernel.netfilter import ANY_FAMILY, NETFILTER
from routemesh.kernel.netlink import Message, Requests

_GET_GENERATION = 10 << 8 | 16
_MODULES = Path("/lib/modules")
_LISTS = ("modules.builtin", "modules.dep")


def has_nf_tables() -> bool:
    """Whether nf_tables is there or can be loaded. Where no file of it exists, asking the kernel can't load it."""
    return _has_module("nf_tables") or _answers()


def has_ip_vs() -> bool:
    """Whether IPVS is there or can be loaded."""
    return _has_module("ip_vs") or ipvs.is_loaded()


def _has_module(name: str) -> bool:
    if Path("/sys/module", name).exists():
        return True
    directory = _MODULES / os.uname().release
    return any(f"/{name}.ko" in _text(directory / listing) for listing in _LISTS)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _answers() -> bool:
    with closing(Requests(protocol=NETFILTER)) as requests:
        try:
            requests.ask(Message(_GET_GENERATION, 0, ANY_FAMILY))
        except OSError:
            return False
    return True
