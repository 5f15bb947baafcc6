"""Which labs there are, and where each keeps what.

    /run/routemesh/lab/NAME/
        lab.json      what it was asked to be
        netns/        its machines: underlay, client, node1 …
        node1/        a node's run directory: socket, namespaces, tasks; gone after a power cut
        disk/node1/   a node's data directory: daemon.log, the tasks' logs; etcd/, where the store is etcd
        state.db      the store of all its daemons, if a file; where machines have joined, disk/node1/cluster.db

Only root may look in there.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from routemesh.errors import NotFound, UserError
from routemesh.lab import topology
from routemesh.model import Role
from routemesh.options import ETCD_PORT, Keys, NodeOptions

LABS = Path("/run/routemesh/lab")
DEFAULT_NAME = "lab"
NAME_VARIABLE = "ROUTEMESH_LAB"

StoreKind = Literal["sqlite", "etcd"]
_MEMBERS = 3

_VALID_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One lab: what it was asked to be. `managers`: the first so many nodes are managers, the others workers.

    The subnets are the cluster's, as networks in text; "" leaves them to the first node. `joined`: its machines share no file;
    node1 is the manager, and the others have joined it over the underlay. `store`: a file, or etcd on the nodes.
    """

    name: str
    nodes: int
    managers: int
    engine: str
    mtu_bytes: int
    ingress_subnet: str = ""
    gwbridge_subnet: str = ""
    joined: bool = False
    store: StoreKind = "sqlite"

    @property
    def directory(self) -> Path:
        """Everything of this lab."""
        return directory(self.name)

    @property
    def node_names(self) -> tuple[str, ...]:
        """node1 …"""
        return topology.node_names(self.nodes)

    @property
    def database(self) -> Path:
        """The store of all its nodes, or of its manager."""
        return self.directory / "disk" / self.node_names[0] / "cluster.db" if self.joined else self.directory / "state.db"

    @property
    def client(self) -> IPv4Address:
        """The address of the client outside."""
        return topology.address(topology.CLIENT)

    @property
    def members(self) -> tuple[str, ...]:
        """The nodes on which etcd is, where that is the store: three, so that one may die, or one."""
        if self.store != "etcd":
            return ()
        return self.node_names[: _MEMBERS if self.managers >= _MEMBERS else 1]

    def etcd_directory(self, name: str) -> Path:
        """Where a node keeps its certificate for etcd, and its member's data."""
        return self.directory / "disk" / name / "etcd"

    def node(self, name: str) -> NodeOptions:
        """A node's daemon. Raises NotFound."""
        if name not in self.node_names:
            raise NotFound(f"lab {self.name} has no node {name}; it has {', '.join(self.node_names)}")
        return NodeOptions(
            name=name,
            advertise=topology.address(name),
            store=self._store,
            keys=self._keys(name),
            run_dir=self.directory / name,
            data_dir=self.directory / "disk" / name,
            engine=self.engine,
            ingress_subnet=IPv4Network(self.ingress_subnet) if self.ingress_subnet else None,
            gwbridge_subnet=IPv4Network(self.gwbridge_subnet) if self.gwbridge_subnet else None,
            role=Role.MANAGER if self.node_names.index(name) < self.managers else Role.WORKER,
        )

    @property
    def _store(self) -> str:
        if not self.members:
            return f"sqlite:{self.database}"
        return f"etcd://{','.join(f'{topology.address(name)}:{ETCD_PORT}' for name in self.members)}"

    def _keys(self, name: str) -> Keys:
        if not self.members:
            return Keys()
        directory = self.etcd_directory(name)
        return Keys(ca=directory / "ca.pem", certificate=directory / "cert.pem", key=directory / "key.pem")

    def netns(self, machine: str) -> Path:
        """The network namespace of the underlay, the client or a node."""
        return self.directory / "netns" / machine

    def save(self) -> None:
        """Write it down in its directory, at one stroke."""
        draft = self.directory / "lab.json.new"
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(self.directory / "lab.json")


def directory(name: str) -> Path:
    """Where lab `name` is or would be. Raises UserError for what can't be a lab's name."""
    if not _VALID_NAME.fullmatch(name):
        raise UserError(f"'{name}' can't be a lab's name: use up to 32 of a-z, 0-9 and '-'")
    return LABS / name


def load(name: str) -> Lab:
    """A lab by name. Raises NotFound, naming those that there are."""
    place = directory(name)
    try:
        return _read(place / "lab.json")
    except FileNotFoundError:
        if place.exists():
            raise NotFound(f"lab {name} is only half made; remove it with 'routemesh lab down --name {name}'") from None
        raise no_such_lab(name) from None


def _read(path: Path) -> Lab:
    """A lab as it was written down, by another version of routemesh perhaps: what this one does not know is passed over."""
    known = {field.name for field in fields(Lab)}
    return Lab(**{name: value for name, value in json.loads(path.read_bytes()).items() if name in known})


def no_such_lab(name: str) -> NotFound:
    """The error that says so and what there is instead."""
    others = ", ".join(lab.name for lab in running_labs())
    instead = f"choose {others} with --name or {NAME_VARIABLE}" if others else f"make it with 'routemesh lab up --name {name}'"
    return NotFound(f"there is no lab {name}; {instead}")


def running_labs() -> list[Lab]:
    """All labs of this machine by name; none for a person who may not look."""
    try:
        found = sorted(LABS.glob("*/lab.json"))
    except OSError:
        return []
    labs = []
    for path in found:
        with suppress(FileNotFoundError):  # it is being taken down
            labs.append(_read(path))
    return labs


def default_socket() -> Path | None:
    """The socket of node1 of the lab that ROUTEMESH_LAB names, else of the only lab that there is."""
    chosen = os.environ.get(NAME_VARIABLE)
    labs = [lab for lab in running_labs() if chosen in (None, "", lab.name)]
    return labs[0].node(labs[0].node_names[0]).socket if len(labs) == 1 else None


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Nobody else changes that lab meanwhile. Raises NotFound where its directory is not there."""
    place = directory(name)
    try:
        file = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_such_lab(name) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not place.exists():
            raise no_such_lab(name)
        yield
    finally:
        os.close(file)
