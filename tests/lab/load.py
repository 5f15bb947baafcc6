"""A client that never stops asking: the witness of every change that must lose nothing."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.cluster import ADDRESSES, Cluster
from tests.uml.machine import is_inside

PAUSE_S = 0.05 if is_inside() else 0.002
"""User-Mode Linux has one processor, which what is to happen under the load needs too."""


@dataclass
class Witness:
    """What came of the requests so far."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Requests that were answered."""
        return self.answers.total()


@contextmanager
def load(cluster: Cluster, port: int) -> Iterator[Witness]:
    """Ask every node in turn, by a new connection each time, until the block ends."""
    witness, stop = Witness(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for node, address in ADDRESSES.items():
                try:
                    witness.answers[cluster.ask(address, port)[0].hostname] += 1
                except (OSError, AssertionError) as exc:
                    witness.failures.append(f"{node}: {exc!r}")
            stop.wait(PAUSE_S)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield witness
    finally:
        stop.set()
        thread.join()
