"""A daemon's leases, prolonged while the rest of it is still being loaded: on a busy machine that takes longer than they last.

Only what is there is prolonged, with the revision that it tells; nothing is made, brought to another format or reported here:
whatever is wrong with the file meets the daemon when it opens its store.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from secrets import randbits

from routemesh.store.sqlitefile import BEAT_BITS, connected_as_it_is

BEAT_EVERY_S = 1.0
AT_MOST_S = 60.0
"""A start that takes longer has failed in some way, and the node is to be given up."""
_BUSY_TIMEOUT_S = 1.0


@contextmanager
def prolonged(path: Path, holder: str) -> Iterator[Callable[[], None]]:
    """Renew the leases that `holder` has in the file, from a thread, until the block ends or what it is given is called.

    Before anything else has the file open in this process.
    """
    enough = threading.Event()
    thread = threading.Thread(target=_prolong, args=(path, holder, enough), name="lease", daemon=True)
    thread.start()
    try:
        yield enough.set
    finally:
        enough.set()
        thread.join()


def _prolong(path: Path, holder: str, enough: threading.Event) -> None:
    end = time.monotonic() + AT_MOST_S
    with suppress(sqlite3.Error, OSError):
        sql = connected_as_it_is(path, _BUSY_TIMEOUT_S)
        if sql is None:
            return
        with closing(sql):
            while not enough.is_set() and time.monotonic() < end:
                with suppress(sqlite3.OperationalError):  # somebody else writes
                    sql.execute("UPDATE leases SET beat = ? WHERE holder = ?", (randbits(BEAT_BITS), holder))
                enough.wait(BEAT_EVERY_S)
