"""Network namespaces of somebody else's making that are to be taken as ours: held open until they have a name among ours.

A descriptor stays with its namespace; the file may be /proc/PID/ns/net of a process that ends, whose number is then another's.
"""

import os
from collections.abc import Mapping
from errno import EINVAL
from pathlib import Path


class Handed:
    """Those that are held, by the name that each is to have; `home` is a descriptor of the node's own namespace."""

    def __init__(self, home: int) -> None:
        self._home = os.fstat(home)
        self._files: dict[str, int] = {}

    def keep(self, name: str, path: Path, known: Mapping[str, int]) -> None:
        """Hold the one at `path`, unless it has that name already; `known`: ours, by name. Raises OSError."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            refusal = self._refusal(name, os.fstat(file), known)
            if refusal:
                raise OSError(EINVAL, refusal)
        except BaseException:
            os.close(file)
            raise
        self.let_go(name)
        if name in known:
            os.close(file)
        else:
            self._files[name] = file

    def file(self, name: str) -> int | None:
        """The descriptor of the one that is to have a name, if it is held."""
        return self._files.get(name)

    def let_go(self, name: str) -> None:
        """Hold it no more; fine when none is held."""
        if (file := self._files.pop(name, None)) is not None:
            os.close(file)

    def close(self) -> None:
        """Let go of all."""
        for name in list(self._files):
            self.let_go(name)

    def _refusal(self, name: str, given: os.stat_result, known: Mapping[str, int]) -> str:
        if given.st_dev != self._home.st_dev:
            return "this is no namespace"
        if given.st_ino == self._home.st_ino:
            return "this is the node's own namespace, which no task may have"
        held = {other: os.fstat(file).st_ino for other, file in self._files.items()}
        others = [other for other, identity in {**held, **known}.items() if identity == given.st_ino and other != name]
        if others:
            return f"this namespace is {others[0]} already"
        if known.get(name, given.st_ino) != given.st_ino:
            return f"another namespace is {name} already"
        return ""
