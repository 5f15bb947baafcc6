"""A proxy's directory: configurations are written whole, readable by root alone, and taken into use by one rename."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from routemesh.proxy.rendered import DIGEST_LENGTH, Rendered

_CANDIDATE = "candidate."
_DIGEST = re.compile(rf"-[0-9a-f]{{{DIGEST_LENGTH}}}(?=\.)")
_SUFFIXES = frozenset({".map", ".list", ".pem"})
"""Of the files besides the main one; sockets and the like have others."""


class Directory:
    """The files of one proxy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def holds(self, rendered: Rendered) -> bool:
        """Whether that configuration is in use."""
        return self._read(rendered.main) == rendered.files[rendered.main]

    def relative(self, text: str) -> str:
        """A program's words without where files are and the digests of what they hold: all nodes' proxies then say the same."""
        return _DIGEST.sub("", text.replace(f"{self.path}/", ""))

    def filesystem(self) -> str:
        """What kind of file system it is on: tmpfs, ext4 … Source: proc(5), mountinfo; a later mount hides an earlier one."""
        path, found = os.path.realpath(self.path), ""
        longest = 0
        for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
            mounted, _, about = line.partition(" - ")
            at = mounted.split()[4]
            if len(at) >= longest and (path == at or path.startswith(f"{at.rstrip('/')}/")):
                longest, found = len(at), about.split()[0]
        return found

    def text(self, name: str) -> str:
        """A file that is in use; "" where there is none."""
        return self._read(name) or ""

    def propose(self, rendered: Rendered) -> Path:
        """Write everything but leave the present configuration in use; the file that a check is to read."""
        for name, text in rendered.files.items():
            if name != rendered.main and self._read(name) != text:
                self._write(name, text)
        return self._write(_CANDIDATE + rendered.main, rendered.files[rendered.main])

    def accept(self, rendered: Rendered) -> None:
        """Take what was proposed into use."""
        (self.path / (_CANDIDATE + rendered.main)).rename(self.path / rendered.main)

    def tidy(self, rendered: Rendered) -> None:
        """Remove files of former configurations."""
        for path in self.path.iterdir():
            if path.suffix in _SUFFIXES and path.name not in rendered.files:
                path.unlink(missing_ok=True)

    def _read(self, name: str) -> str | None:
        try:
            return (self.path / name).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        draft = path.with_name(f".{name}.new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        draft.rename(path)
        return path


def remove_others(root: Path, kept: Mapping[str, object]) -> None:
    """Remove the directories of proxies that are gone."""
    for path in root.iterdir() if root.exists() else ():
        if path.name not in kept and path.is_dir():
            for file in path.iterdir():
                file.unlink(missing_ok=True)
            path.rmdir()
