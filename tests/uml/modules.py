"""Loading kernel modules without kmod, which a minimal Debian does not have: finit_module(2) in the order of modules.dep(5)."""

import ctypes
import os
from collections.abc import Iterable
from errno import EEXIST
from pathlib import Path

DIRECTORY = Path("/usr/lib/uml/modules")
"""Where Debian's user-mode-linux has them, a directory per kernel release."""

OVERLAY = ("overlay",)
NETWORK = (
    "bridge", "veth", "vxlan", "nf_conntrack_netlink", "ip_tables", "iptable_filter", "iptable_mangle", "iptable_nat",
    "iptable_raw", "xt_CT", "xt_MASQUERADE", "xt_REDIRECT", "xt_TCPMSS", "xt_TRACE", "xt_addrtype", "xt_comment",
    "xt_connmark", "xt_conntrack", "xt_ipvs", "xt_limit", "xt_mac", "xt_mark", "xt_multiport", "xt_nat", "xt_state",
    "xt_statistic", "xt_tcpudp", "ipt_REJECT", "xt_LOG", "ip_vs", "ip_vs_dh", "ip_vs_fo", "ip_vs_lblc", "ip_vs_lblcr",
    "ip_vs_lc", "ip_vs_mh", "ip_vs_nq", "ip_vs_ovf", "ip_vs_rr", "ip_vs_sed", "ip_vs_sh", "ip_vs_wlc", "ip_vs_wrr",
    "nf_tables", "nf_log_syslog", "nfnetlink_log", "udp_diag", "raw_diag", "unix_diag",
)  # fmt: skip
"""What the mesh's path is made of. Not br_netfilter: a bridge whose packets pass iptables is a fault that tests bring about."""

_libc = ctypes.CDLL(None, use_errno=True)
_FINIT_MODULE = 313  # x86_64, the only architecture for which Debian has this kernel with these modules


def in_order(names: Iterable[str], listing: str) -> list[str]:
    """The files of modules and of what they need, each once, what is needed first; `listing` is the text of modules.dep.

    Modules that are built into the kernel are not listed and left out.
    """
    needs = {}
    for line in listing.splitlines():
        file, _, rest = line.partition(":")
        needs[_name(file)] = [*reversed(rest.split()), file]
    return list(dict.fromkeys(file for name in names for file in needs.get(name, ())))


def load(names: Iterable[str]) -> None:
    """Load modules of this kernel. Raises OSError, with the module's file."""
    directory = DIRECTORY / os.uname().release
    for file in in_order(names, (directory / "modules.dep").read_text()):
        descriptor = os.open(directory / file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syscall(_FINIT_MODULE, descriptor, b"", 0) and (number := ctypes.get_errno()) != EEXIST:
                raise OSError(number, os.strerror(number), file)
        finally:
            os.close(descriptor)


def _name(file: str) -> str:
    return Path(file).name.partition(".ko")[0].replace("-", "_")
