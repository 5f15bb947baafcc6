"""Bound sockets in a process of its own: ten thousand of them are ten thousand descriptors.

A question: JSON, the ports that are wanted, as [[protocol, port], …]. An answer: JSON, those that could not be held, as
[[protocol, port, errno], …]. The others are held, and what is not wanted any more is let go of.
"""

import json
import resource
import signal
import socket

from routemesh.coprocess import frames

Port = tuple[str, int]


def main() -> None:
    """Answer questions from standard input, a socket, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asked = socket.socket(fileno=0)
    held: dict[Port, socket.socket] = {}
    while (question := frames.receive(asked)) is not None:
        wanted = {(protocol, port) for protocol, port in json.loads(question.body)}
        for port in held.keys() - wanted:
            held.pop(port).close()
        refused = []
        for port in sorted(wanted - held.keys()):
            try:
                held[port] = _bound(*port)
            except OSError as exc:
                refused.append((*port, exc.errno or 0))
        frames.send(asked, json.dumps(refused).encode())


def _bound(protocol: str, port: int) -> socket.socket:
    """A TCP socket that does not listen answers with a reset; a UDP socket that is connected to itself hears of nobody else."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    try:
        made.bind(("", port))
        if protocol == "udp":
            made.connect(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


if __name__ == "__main__":
    main()
