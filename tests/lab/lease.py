"""A node's lease, kept while its daemon is away."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from tests.lab.cluster import Cluster

BEAT_EVERY_S = 0.5


@contextmanager
def lease_kept(mesh: Cluster, node: str) -> Iterator[None]:
    """Renew a node's lease in its daemon's stead: on a busy machine a daemon takes longer to start than its lease lasts."""
    name = f"node/{mesh.api.node(node).id}"
    done = threading.Event()

    def renew() -> None:
        with closing(sqlite3.connect(mesh.directory / "state.db", timeout=60, isolation_level=None)) as database:
            while not done.is_set():
                assert database.execute("UPDATE leases SET beat = beat + 1 WHERE name = ?", (name,)).rowcount == 1
                done.wait(BEAT_EVERY_S)

    with ThreadPoolExecutor(1) as keeper:
        kept = keeper.submit(renew)
        try:
            yield
        finally:
            done.set()
        kept.result()
