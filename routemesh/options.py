"""What a node's daemon is started with: the flags of `routemesh node`. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.model import Role

RUN_DIR = Path("/run/routemesh")
DATA_DIR = Path("/var/lib/routemesh")
STORE = "sqlite:/var/lib/routemesh/cluster.db"
_SQLITE_PREFIX = "sqlite:"
SOCKET_NAME = "routemesh.sock"
DEFAULT_SOCKET = RUN_DIR / SOCKET_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """One node's daemon. `advertise`: its address on the underlay. `store`: the cluster's store, sqlite:PATH.

    `run_dir` holds what does not survive a reboot (the socket, the namespaces), `data_dir` what does. The subnets count only for
    the node that makes the cluster; None: the first that is free there. `new_cluster`: a node that belonged to another cluster
    leaves that.
    """

    name: str
    advertise: IPv4Address
    store: str = STORE
    run_dir: Path = RUN_DIR
    data_dir: Path = DATA_DIR
    engine: str = "auto"
    role: Role = Role.MANAGER
    labels: Mapping[str, str] = field(default_factory=dict)
    ingress_subnet: IPv4Network | None = None
    gwbridge_subnet: IPv4Network | None = None
    new_cluster: bool = False

    @property
    def socket(self) -> Path:
        """Where the daemon answers its API."""
        return self.run_dir / SOCKET_NAME

    @property
    def database(self) -> Path:
        """The file of a store `sqlite:PATH`, or of a plain path. Raises Unavailable for a store of another kind."""
        path = self.store.removeprefix(_SQLITE_PREFIX)
        if "://" in path:
            raise Unavailable(f"store '{self.store}' is of a kind that this version does not have; use sqlite:PATH")
        return Path(path).absolute()
