"""The beginning of a daemon: what must not wait until the rest of it is loaded, which takes a busy machine seconds."""

import logging
import os
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, assert_never

from routemesh import identity
from routemesh.errors import UserError
from routemesh.legible import one_line, visible
from routemesh.options import EtcdCluster, NodeOptions, OfManagers, Place, SqliteFile
from routemesh.store.prolong import prolonged

_OPEN_FILES = 1 << 17
"""So many ports can be published, TCP and UDP."""


def run(options: NodeOptions) -> None:
    """Run the daemon of a node until SIGTERM or SIGINT.

    It is the only one of the node before it does anything; then it prolongs the lease that the last one has left, so that the
    cluster does not give the node up meanwhile. Raises UserError, Conflict or Unavailable where it can't start: not root, a
    second daemon of the node, what node.run raises. A start that is refused leaves no file that it made.
    """
    logging.basicConfig(level=logging.INFO, handlers=[_log_handler()])
    if os.geteuid() != 0:
        raise UserError("routemesh node needs root, for network namespaces and nftables; start it with sudo")
    _raise_file_limit()
    with identity.traceless(options.run_dir, options.data_dir) as kept:
        for directory in (options.run_dir, options.data_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with identity.alone(options.run_dir, options.data_dir) as known_as, _prolonged(options.place, known_as) as begun:
            from routemesh import node

            def goes() -> None:
                kept()
                begun()

            node.run(options, known_as, goes)


def _prolonged(place: Place, known_as: str) -> AbstractContextManager[Callable[[], None]]:
    match place:
        case SqliteFile(path):
            return prolonged(path, known_as)
        case OfManagers():
            return nullcontext(lambda: None)  # the managers are asked with more than a file
        case EtcdCluster():
            return nullcontext(lambda: None)  # its machine is loaded by one daemon, which starts well within a lease
        case _:
            assert_never(place)


class _VisibleLog(logging.Formatter):
    """What others put into a message, as a task's error, forges no line and reaches no terminal as an escape sequence."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return visible(super().formatException(ei))


def _log_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleLog("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return handler


def _raise_file_limit() -> None:
    """A task costs a descriptor, and a published port one of the process that holds them (docs/adr/0014)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # CAP_SYS_RESOURCE may be missing, or fs.nr_open lower
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _OPEN_FILES), max(hard, _OPEN_FILES)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
