"""A coprocess as seen by the process that uses it."""

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from errno import EPIPE
from pathlib import Path

from routemesh.coprocess import frames

_ANSWER_WITHIN_S = 60.0
_REMEMBERED_PIDS = 64
_SAID_BYTES = 2000
_PACKAGES = Path(__file__).parents[2]

_living: set[int] = set()


def lives(pid: int) -> bool:
    """Whether a process of that id is a coprocess of this one."""
    return pid in _living


class Coprocess:
    """A module of `routemesh.coprocess` in a process of its own: started at the first question, and anew after its end.

    It ends with this process, however that ends, since its socket is closed then. For any thread; one question at a time.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._said: int | None = None
        self._pids: deque[int] = deque(maxlen=_REMEMBERED_PIDS)

    def start(self) -> None:
        """Let it begin now, so that the first question need not wait for it. Raises OSError."""
        with self._turn:
            self._started()

    def ask(self, body: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """The answer to a question. Raises OSError where it can't be started, ended, or did not answer within 60 s."""
        with self._turn:
            asked = self._started()
            try:
                frames.send(asked, body, descriptors)
                answer = frames.receive(asked)
            except OSError as exc:
                raise self._end(exc) from exc
            if answer is None:
                raise self._end(None)
            return answer.body

    def is_alive(self) -> bool:
        """Whether it runs."""
        process = self._process
        return process is not None and process.poll() is None

    def is_one_of_its(self, pid: int) -> bool:
        """Whether a process of that id is it, or was it before it was started anew."""
        return pid in self._pids

    def close(self) -> None:
        """End it; a later question starts it anew."""
        with self._turn:
            self._stop()

    def _started(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._stop()
        ours, its = socket.socketpair()
        try:
            said = os.memfd_create(f"{self._module}-stderr", os.MFD_CLOEXEC)
            try:
                self._process = self._spawn(its, said)
            except BaseException:
                os.close(said)
                raise
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self._pids.append(self._process.pid)
        _living.add(self._process.pid)
        ours.settimeout(_ANSWER_WITHIN_S)
        self._socket, self._said = ours, said
        return ours

    def _spawn(self, its: socket.socket, said: int) -> "subprocess.Popen[bytes]":
        """In a session of its own: what a person types at the daemon's terminal is not meant for it."""
        path = os.pathsep.join([str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-P", "-m", f"routemesh.coprocess.{self._module}"],
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def _end(self, reason: OSError | None) -> OSError:
        """After it failed: what to tell of it. It may still run, and nobody knows what it would answer next."""
        said = "" if self._said is None else os.pread(self._said, _SAID_BYTES, 0).decode(errors="replace").strip()
        self._stop()
        why = said.rpartition("\n")[2] or (str(reason) if reason is not None else "no reason given")
        return OSError(EPIPE, f"the process routemesh.coprocess.{self._module} ended: {why}; it is started anew")

    def _stop(self) -> None:
        process, self._process = self._process, None
        asked, self._socket = self._socket, None
        said, self._said = self._said, None
        if asked is not None:
            asked.close()
        if said is not None:
            os.close(said)
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            _living.discard(process.pid)
