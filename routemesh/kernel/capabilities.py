"""What this kernel offers, found out without changing anything: no module is loaded to see whether it could be.

Source: modules.dep(5), kmod's modules.builtin; include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nfnetlink.c
(nfnetlink_rcv_batch), nf_tables_api.c (nft_supported_family).
"""

import os
from contextlib import closing
from pathlib import Path

from routemesh.kernel.netlink import CREATE, Message, Requests, attribute, ipvs, nest, text, u8
from routemesh.kernel.netlink.netfilter import ANY_FAMILY, BRIDGE, IPV4, NETDEV, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaObject, NftaTable, NftaTimeouts, NftMessage

_TIMEOUTS_TYPE = 7
"""NFT_OBJECT_CT_TIMEOUT."""
_IPV4_NUMBER, _TCP = 2, 6
_PROBE = "routemesh-probe"
_BATCH_BEGINS = Message(16, 0, bytes((0, 0, 0, NftMessage.NEW_TABLE >> 8)))

_MODULES = Path("/lib/modules")
BUILT_IN, LOADABLE = "modules.builtin", "modules.dep"


def has_nf_tables() -> bool:
    """Whether tables of the families that the engine needs can be made: a kernel may have nf_tables, but not for IPv4.

    A module that is not loaded yet is taken at its word, since asking the kernel loads it.
    """
    return _may_take_tables(IPV4, NETDEV)


def has_bridge_tables() -> bool:
    """The same of tables that filter what bridges forward, which the engines have both, and can do without."""
    return _may_take_tables(BRIDGE)


def _may_take_tables(*families: bytes) -> bool:
    return (not is_loaded("nf_tables") and has_file("nf_tables", LOADABLE)) or takes_tables(*families)


def has_ip_vs() -> bool:
    """Whether IPVS is there or can be loaded."""
    return is_loaded("ip_vs") or has_file("ip_vs", BUILT_IN, LOADABLE) or ipvs.is_loaded()


def is_loaded(name: str) -> bool:
    """Whether a module is loaded; one that is built in need not show."""
    return Path("/sys/module", name).exists()


def has_file(name: str, *listings: str) -> bool:
    """Whether a module is in one of the lists BUILT_IN and LOADABLE that were installed with this kernel."""
    directory = _MODULES / os.uname().release
    return any(f"/{name}.ko" in _text(directory / listing) for listing in listings)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def takes_tables(*families: bytes) -> bool:
    """Whether it makes tables of these families."""
    return _takes(*(Message(NftMessage.NEW_TABLE, CREATE, family + text(NftaTable.NAME, _PROBE)) for family in families))


def takes_timeouts() -> bool:
    """Whether nftables can say how long connections are remembered; taken at its word as `has_nf_tables` does."""
    if not is_loaded("nf_tables") and has_file("nf_tables", LOADABLE):
        return True
    numbers = attribute(NftaTimeouts.LAYER3, _IPV4_NUMBER.to_bytes(2, "big")) + u8(NftaTimeouts.LAYER4, _TCP)
    seconds = nest(NftaTimeouts.SECONDS, attribute(1, (120).to_bytes(4, "big")))
    which = (
        text(NftaObject.TABLE, _PROBE)
        + text(NftaObject.NAME, _PROBE)
        + attribute(NftaObject.TYPE, _TIMEOUTS_TYPE.to_bytes(4, "big"))
    )
    made = Message(NftMessage.NEW_OBJECT, CREATE, IPV4 + which + nest(NftaObject.DATA, numbers, seconds))
    return _takes(Message(NftMessage.NEW_TABLE, CREATE, IPV4 + text(NftaTable.NAME, _PROBE)), made)


def _takes(*messages: Message) -> bool:
    """Try it in a transaction that is never ended, which the kernel takes back; without nf_tables it would not even answer."""
    with closing(Requests(protocol=NETFILTER)) as requests:
        try:
            requests.ask(Message(NftMessage.GET_GENERATION, 0, ANY_FAMILY))
            return not any(requests.execute([_BATCH_BEGINS, *messages]))
        except OSError:
            return False
