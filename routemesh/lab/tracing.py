"""Tracing in a lab some of whose daemons are silent: all its namespaces are on this machine, and are watched without them."""

import random
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from routemesh.errors import Unavailable
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask
from routemesh.kernel.netns import identities
from routemesh.lab import topology
from routemesh.lab.find import Lab
from routemesh.sight.sender import send
from routemesh.sight.watch import Watch, paths_of
from routemesh.sightings import Opening, Probe, SeenPacket, Sent, Wanted
from routemesh.snapshot import ClusterSnapshot
from routemesh.trace.nouns import Traced
from routemesh.trace.wanted import LIVE_SETTLE_S, PORTS, SETTLE_S, Asking, nobody_came, probe_of, somebodys, wanted
from routemesh.values import replace


def trace(cluster: ClusterSnapshot, lab: Lab, asking: Asking) -> Traced:
    """Watch all nodes of a lab that are switched on, and send the probe or wait for somebody's. Raises RoutemeshError."""
    asked = ask(cluster, asking.target, asking.client, lab.client, random.choice(PORTS))
    prediction = explain(cluster, asked)
    probe = probe_of(asked, asking)
    with _watching(lab, wanted(prediction, asked, asking)) as watches:
        if probe is not None:
            sent, port = _sent(lab, probe), asked.source.port
            time.sleep(SETTLE_S)
        else:
            seen = _first(watches, Opening(destination=str(asked.destination)), asking)
            time.sleep(LIVE_SETTLE_S)
            source, port = seen.headers.source, seen.port
            theirs = ask(cluster, asking.target, source, None)
            prediction = explain(cluster, replace(theirs, client=asked.client))
            sent = somebodys(seen)
        return Traced(prediction, sent, tuple(watch.collect(port) for watch in watches.values()))


@contextmanager
def _watching(lab: Lab, sought: Wanted) -> Iterator[Mapping[str, Watch]]:
    found: dict[str, Watch] = {}
    try:
        for name in lab.node_names:
            own, directory = lab.netns(name), lab.node(name).run_dir / "netns"
            if own.exists():
                found[name] = Watch(name, paths_of(directory, own, sorted(identities(directory))), sought)
        yield found
    finally:
        for watch in found.values():
            watch.close()


def _sent(lab: Lab, probe: Probe) -> Sent:
    if not probe.node:
        return send(probe, lab.netns(topology.CLIENT))
    return send(probe, lab.node(probe.node).run_dir / "netns" / probe.namespace if probe.namespace else lab.netns(probe.node))


def _first(watches: Mapping[str, Watch], opening: Opening, asking: Asking) -> SeenPacket:
    """The first packet of somebody's connection at the node that is asked."""
    entry = watches.get(asking.target.node)
    if entry is None:
        raise Unavailable(f"{asking.target.node}, where it would come in, is switched off")
    deadline = time.monotonic() + asking.timeout_s
    while (left := deadline - time.monotonic()) > 0:
        select.select([entry], [], [], left)
        for seen in entry.look():
            if seen.opens(opening):
                return seen
    raise Unavailable(nobody_came(asking))
