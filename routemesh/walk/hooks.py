"""In which order a packet meets what sits at a hook. PURE.

NAT has one place at each hook, whatever the priorities of its chains, which are ordered among themselves.
Source: include/uapi/linux/netfilter_ipv4.h; nf_nat_core.c (nf_nat_register_fn).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from routemesh.nodeplan import Chain

_TRACKING: Mapping[str, int] = {"prerouting": -200, "output": -200}
_TRANSLATION: Mapping[str, int] = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}


@dataclass(frozen=True, slots=True)
class Tracking:
    """Connection tracking looks up the packet's connection."""


@dataclass(frozen=True, slots=True)
class Translation:
    """NAT: its chains decide about a connection's first packet, its record about all others."""

    chains: tuple[Chain, ...]


Turn = Chain | Tracking | Translation


def in_order(hook: str, chains: Iterable[Chain]) -> Iterator[Turn]:
    """The base chains of one hook among what the kernel itself does there, by priority."""
    ranked = sorted((chain.hook.priority, number, chain) for number, chain in enumerate(chains) if chain.hook is not None)
    nat = tuple(chain for _, _, chain in ranked if chain.hook is not None and chain.hook.type == "nat")
    turns: list[tuple[int, Turn]] = [(priority, chain) for priority, _, chain in ranked if chain not in nat]
    if hook in _TRACKING:
        turns.append((_TRACKING[hook], Tracking()))
    if hook in _TRANSLATION:
        turns.append((_TRANSLATION[hook], Translation(nat)))
    return (turn for _, turn in sorted(turns, key=lambda pair: pair[0]))
