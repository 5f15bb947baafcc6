"""What a node finds out for the doctor beyond what is in its kernel: real packets to the other nodes, and its devices.

Source: rtnetlink(7); see overlayprobe and ethtool.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

from routemesh import names
from routemesh.kernel import netns
from routemesh.kernel.netlink import Requests, entries, entryreader
from routemesh.kernel.netlink.links import names_by_index
from routemesh.nodeplan import Address
from routemesh.sight.echo import WITHIN_S, probe
from routemesh.sight.ethtool import offload
from routemesh.sightings import SMALL_BYTES, Echoes, Offload


def check_up(
    directory: Path, address: IPv4Address, peers: Mapping[str, tuple[IPv4Address, int]], within_s: float = WITHIN_S
) -> tuple[tuple[Echoes, ...], tuple[Offload, ...]]:
    """Of the node whose own namespace the calling thread is in, and whose others are files in `directory`.

    `address` is its own on the underlay. Without a sandbox, nothing is sent.
    """
    return _probed(directory / names.SANDBOX, peers, within_s), tuple(_offloads(address))


def answering(directory: Path, peers: Mapping[str, IPv4Address]) -> Set[str]:
    """The names of the nodes whose sandboxes answer ours within WITHIN_S. Without a sandbox of our own nobody knows: all."""
    heard = _probed(directory / names.SANDBOX, {name: (address, SMALL_BYTES) for name, address in peers.items()}, WITHIN_S)
    return peers.keys() - {each.peer for each in heard if not each.answered}


def _probed(sandbox: Path, peers: Mapping[str, tuple[IPv4Address, int]], within_s: float) -> tuple[Echoes, ...]:
    try:
        with netns.entered(sandbox):
            return probe(peers, within_s) if peers else ()
    except OSError:
        return ()  # that there is no sandbox the plan tells


def _offloads(address: IPv4Address) -> Iterator[Offload]:
    """Of the device that carries the tunnel's packets."""
    links = names_by_index()
    with closing(Requests()) as requests:
        for reply in requests.dump(*entries.dump_addresses()):
            found = entryreader.address(reply.body, links)
            entry = None if found is None else found.entry
            if isinstance(entry, Address) and entry.address.ip == address and (told := offload(entry.link)) is not None:
                yield told
