"""Settings of which the kernel tells nobody, looked at again and again through files that are kept open.

To enter a namespace for each look costs twenty times as much. An open file below /proc/sys shows the namespace in which it was
opened, keeps it from nothing, and can't be read any more when that, or the device that the setting is of, is gone (ENOENT).
Source: the kernel's fs/proc/proc_sysctl.c.
"""

import os
from collections.abc import Iterable
from contextlib import suppress

from routemesh.kernel import sysctl

MOST_AT_ONCE = 256
"""So many are read at every look, some 0.3 ms; of more, half have their turn."""
_LONGEST_BYTES = 4096


class _Setting:
    """One that is held open, and what it was when it was last seen."""

    def __init__(self, path: str) -> None:
        self.file = sysctl.opened(path)
        self.seen = self.now()

    def now(self) -> bytes | None:
        try:
            return os.pread(self.file, _LONGEST_BYTES, 0)
        except OSError:
            return None


class Glances:
    """What is looked at, by namespace and path. Not for several threads at a time."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, _Setting]] = {}
        self._which: dict[str, object] = {}
        self._odd = False

    def hold(self, namespace: str, which: object, paths: Iterable[str]) -> None:
        """Look at these settings of the namespace, which the calling thread is in, and at no others; what they are now is known.

        `which` is another object when there is another namespace of that name.
        """
        if self._which.get(namespace) is not which:
            self._let_go(namespace)
        before = self._held.pop(namespace, {})
        held = {path: setting for path in paths if (setting := _again(before.pop(path, None), path)) is not None}
        for setting in before.values():
            os.close(setting.file)
        if held:
            self._held[namespace], self._which[namespace] = held, which

    def take_as_known(self, namespace: str) -> None:
        """What was written to the namespace's settings is no news."""
        for setting in self._held.get(namespace, {}).values():
            setting.seen = setting.now()

    def look(self) -> bool:
        """Whether one is other than it was last seen, each told once; of very many each is looked at every other time."""
        everything = [(namespace, path) for namespace, held in self._held.items() for path in held]
        if len(everything) > MOST_AT_ONCE:
            self._odd = not self._odd
            everything = everything[self._odd :: 2]
        return any([self._has_changed(namespace, path) for namespace, path in everything])

    def close(self) -> None:
        """Let go of all."""
        for namespace in tuple(self._held):
            self._let_go(namespace)

    def _let_go(self, namespace: str) -> None:
        self._which.pop(namespace, None)
        for setting in self._held.pop(namespace, {}).values():
            os.close(setting.file)

    def _has_changed(self, namespace: str, path: str) -> bool:
        setting = self._held[namespace][path]
        known, setting.seen = setting.seen, setting.now()
        if setting.seen is None:
            os.close(self._held[namespace].pop(path).file)
            if not self._held[namespace]:
                self._let_go(namespace)
        return setting.seen != known


def _again(held: _Setting | None, path: str) -> _Setting | None:
    """The same one where it can still be read; None where there is no such setting."""
    if held is not None:
        held.seen = held.now()
        if held.seen is not None:
            return held
        os.close(held.file)
    with suppress(OSError):
        return _Setting(path)
    return None
