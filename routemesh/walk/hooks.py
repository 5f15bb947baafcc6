"""In which order a packet meets what sits at a hook. PURE.

NAT has one place at each hook, whatever the priorities of its chains, which are ordered among themselves.
Source: include/uapi/linux/netfilter_ipv4.h; nf_nat_core.c (nf_nat_register_fn); ip_vs_core.c (ip_vs_ops4).
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from routemesh.walk.chains import RuleChain

_TRACKING: Mapping[str, int] = {"prerouting": -200, "output": -200}
_TRANSLATION: Mapping[str, int] = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
_ANSWERS: Mapping[str, int] = {"input": 98, "output": -99, "forward": 100}
_REQUESTS: Mapping[str, int] = {"input": 99, "output": -98, "forward": 99}


class Tracking(msgspec.Struct, frozen=True):
    """Connection tracking looks up the packet's connection."""


class Translation(msgspec.Struct, frozen=True):
    """NAT: its chains decide about a connection's first packet, its record about all others."""

    chains: tuple[RuleChain, ...]


class Answers(msgspec.Struct, frozen=True):
    """IPVS gives answers of real servers the source that the client asked."""


class Requests(msgspec.Struct, frozen=True):
    """IPVS takes what is for a virtual service and sends it to a real server."""


Turn = RuleChain | Tracking | Translation | Answers | Requests


def in_order(hook: str, chains: Iterable[RuleChain], *, balances: bool) -> Iterator[Turn]:
    """The base chains of one hook among what the kernel itself does there, by priority; IPVS too if it `balances` anything."""
    ranked = sorted((chain.hook.priority, number, chain) for number, chain in enumerate(chains) if chain.hook is not None)
    nat = tuple(chain for _, _, chain in ranked if chain.hook is not None and chain.hook.type == "nat")
    turns: list[tuple[int, Turn]] = [(priority, chain) for priority, _, chain in ranked if chain not in nat]
    if hook in _TRACKING:
        turns.append((_TRACKING[hook], Tracking()))
    if hook in _TRANSLATION:
        turns.append((_TRANSLATION[hook], Translation(nat)))
    if balances and hook in _ANSWERS:
        turns.append((_ANSWERS[hook], Answers()))
    if balances and hook in _REQUESTS:
        turns.append((_REQUESTS[hook], Requests()))
    return (turn for _, turn in sorted(turns, key=lambda pair: pair[0]))
