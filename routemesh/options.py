"""What a node's daemon is started with: the flags of `routemesh node`. Standard library only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from routemesh.errors import UserError
from routemesh.model import Role

RUN_DIR = Path("/run/routemesh")
DATA_DIR = Path("/var/lib/routemesh")
ETCD_PORT = 2379
STORE = "sqlite:/var/lib/routemesh/cluster.db"
_SQLITE, _ETCD = "sqlite:", "etcd://"
_HOST = re.compile(r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(:(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_LAST_PORT = 65535
SOCKET_NAME = "routemesh.sock"
DEFAULT_PREFIX = "routemesh"
DEFAULT_SOCKET = RUN_DIR / SOCKET_NAME


API_PORT = 2377
"""Where daemons answer one another; Swarm's port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a node has from `routemesh cluster init` or `join`: ids, the port at its address, the managers (HOST:PORT)."""

    node_id: str
    cluster: str
    port: int = API_PORT
    managers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The files by which a daemon knows its store and the store knows it; None: none.

    `ca`: of the certificates that servers may have; `certificate` and `key`: the daemon's own. `password`: of `user`, a line.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password: Path | None = None


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """The store of one machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class EtcdCluster:
    """A store in etcd: its members, each HOST:PORT, and what all keys begin with."""

    endpoints: tuple[str, ...]
    prefix: str
    keys: Keys = Keys()

    def __str__(self) -> str:
        return f"etcd at {', '.join(self.endpoints)}"


@dataclass(frozen=True, slots=True)
class OfManagers:
    """A worker's: the managers have the store, and it asks them."""


Place = SqliteFile | EtcdCluster | OfManagers


def place(store: str, keys: Keys = Keys()) -> Place:
    """Where the cluster's state is: sqlite:PATH, a plain path, etcd://HOST[:PORT],…[/PREFIX]. Raises UserError for all else."""
    if store.startswith(_ETCD):
        return _etcd(store, keys)
    path = store.removeprefix(_SQLITE)
    if "://" in path:
        raise UserError(f"store '{store}' is of no kind that there is; use sqlite:PATH or etcd://HOST:PORT,HOST:PORT/PREFIX")
    if keys != Keys():
        raise UserError(f"store '{store}' is a file, which takes no certificates and no user: leave out --store-ca and the like")
    return SqliteFile(Path(path).absolute())


def _etcd(store: str, keys: Keys) -> EtcdCluster:
    hosts, _, prefix = store.removeprefix(_ETCD).partition("/")
    endpoints = tuple(_endpoint(store, host) for host in hosts.split(","))
    if prefix and not _PREFIX.fullmatch(prefix):
        raise UserError(f"store '{store}': '{prefix}' is no prefix; use letters, digits, '.', '_', '-' and '/' between them")
    if (keys.certificate is None) != (keys.key is None):
        raise UserError(f"store '{store}': --store-cert and --store-key belong together; give both or neither")
    if bool(keys.user) != (keys.password is not None):
        raise UserError(f"store '{store}': --store-user and --store-password-file belong together; give both or neither")
    return EtcdCluster(endpoints, f"/{prefix or DEFAULT_PREFIX}", keys)


def _endpoint(store: str, text: str) -> str:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or ETCD_PORT) if found else 0
    if not found or not 0 < port <= _LAST_PORT:
        raise UserError(f"store '{store}': '{text}' is no HOST or HOST:PORT; use etcd://HOST:PORT,HOST:PORT/PREFIX")
    return f"{found['host']}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """One node's daemon. `advertise`: its address on the underlay. `store`: the cluster's store (see `place`), `keys` to it.

    `run_dir` holds what does not survive a reboot (the socket, the namespaces), `data_dir` what does. The subnets count only for
    the node that makes the cluster; None: the first that is free there. `new_cluster`: a node that belonged to another cluster
    leaves that. `membership`: None for one that shares its store's file with all others. A worker with one has no store ("").
    """

    name: str
    advertise: IPv4Address
    store: str = STORE
    keys: Keys = Keys()
    run_dir: Path = RUN_DIR
    data_dir: Path = DATA_DIR
    engine: str = "auto"
    role: Role = Role.MANAGER
    labels: Mapping[str, str] = field(default_factory=dict)
    ingress_subnet: IPv4Network | None = None
    gwbridge_subnet: IPv4Network | None = None
    new_cluster: bool = False
    membership: Membership | None = None

    @property
    def socket(self) -> Path:
        """Where the daemon answers its API."""
        return self.run_dir / SOCKET_NAME

    @property
    def place(self) -> Place:
        """Where the cluster's state is. Raises UserError, see place()."""
        if self.membership is not None and not self.store:
            return OfManagers()
        return place(self.store, self.keys)
