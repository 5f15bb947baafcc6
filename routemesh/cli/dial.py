"""`routemesh dial-stdio`: what -H ssh://… runs on the other machine."""

import os
import selectors
import socket

import click

from routemesh.cli.host import Host
from routemesh.errors import Unavailable

_BLOCK_BYTES = 64 * 1024


@click.command("dial-stdio", hidden=True)
@click.pass_obj
def dial_stdio(host: Host) -> None:
    """Join standard input and output with the daemon's socket, until either ends."""
    path = host.socket()
    with socket.socket(socket.AF_UNIX) as daemon:
        try:
            daemon.connect(str(path))
        except OSError as exc:
            raise Unavailable(f"no daemon answers at {path}: {exc.strerror}") from exc
        _join(daemon)


def _join(daemon: socket.socket) -> None:
    ways = {0: daemon.fileno(), daemon.fileno(): 1}
    with selectors.DefaultSelector() as selector:
        for source in ways:
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                block = os.read(key.fd, _BLOCK_BYTES)
                if not block:
                    return
                _write(ways[key.fd], block)


def _write(target: int, block: bytes) -> None:
    while block:
        block = block[os.write(target, block) :]
