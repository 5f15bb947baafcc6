"""A node's credentials on its disk, below its data directory, each file 0600 and replaced at one stroke.

pki/node.pem     the node's key, its certificate, and what leads from that to a root
pki/roots.pem    the roots that it believes
"""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from routemesh.errors import Unavailable

_NODE, _ROOTS = "node.pem", "roots.pem"
_BEGIN = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node proves who it is with (`key`, `chain`), and what it believes others by (`roots`), all PEM."""

    key: str = field(repr=False)
    chain: str
    roots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node keeps them: its data directory."""

    data_dir: Path

    @property
    def directory(self) -> Path:
        """The directory of the files, 0700."""
        return self.data_dir / "pki"

    @property
    def node(self) -> Path:
        """The file with the key and the certificate."""
        return self.directory / _NODE

    @property
    def roots(self) -> Path:
        """The file with the roots."""
        return self.directory / _ROOTS

    def exists(self) -> bool:
        """Whether there are any."""
        return self.node.exists()

    def save(self, credentials: Credentials) -> None:
        """Keep them. The roots come first: who believes more roots than it needs can still be talked to. Raises Unavailable."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.roots, "".join(credentials.roots))
            replace_file(self.node, credentials.key + credentials.chain)
        except OSError as exc:
            raise Unavailable(f"can't write {self.directory}: {exc.strerror}: the node's certificate is kept there") from exc

    def load(self) -> Credentials:
        """Read them. Raises Unavailable where they are not there or not whole."""
        try:
            node, roots = self.node.read_text(), self.roots.read_text()
        except OSError as exc:
            raise Unavailable(f"can't read {exc.filename}: {exc.strerror}: the node's certificate is kept there") from exc
        key, begin, chain = node.partition(_BEGIN)
        if not begin or "PRIVATE KEY" not in key:
            raise Unavailable(f"{self.node} is damaged: restore it, or leave the cluster and join it again")
        return Credentials(key, begin + chain, split(roots))

    def remove(self) -> None:
        """Forget them; a second call does nothing."""
        for path in (self.node, self.roots):
            path.unlink(missing_ok=True)
        if self.directory.exists():
            self.directory.rmdir()


def split(pem: str) -> tuple[str, ...]:
    """The certificates of a text, one by one."""
    return tuple(_BEGIN + part for part in pem.split(_BEGIN)[1:])


def replace_file(path: Path, text: str) -> None:
    """Give a file, 0600, a new content at one stroke that survives a power cut. Raises OSError."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "w") as writer:
            writer.write(text)
            writer.flush()
            os.fsync(writer.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
