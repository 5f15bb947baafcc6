"""The JSON shapes of the API, for both of its ends: PURE.

A service's spec travels as the model has it. What is answered about services, tasks and nodes adds what a client would otherwise
have to look up (names, counts) and spells states as Docker does: "running". Times are seconds since the epoch.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from routemesh.codec import encoded, from_text, to_text
from routemesh.errors import Conflict, Forbidden, NotFound, RoutemeshError, Unavailable, UserError
from routemesh.model import Availability, CertificateWarning, GatewayDriver, Listener, Mode, Role, ServiceSpec
from routemesh.sightings import PortAnswer

PREFIX = "/routemesh/v1"
SELF = "self"
"""Instead of a node's name: the one that is asked."""

T = TypeVar("T")


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A service; `running` of the `wanted` tasks serve."""

    id: str
    name: str
    mode: Mode
    running: int
    wanted: int
    version: int
    created_at: float
    updated_at: float
    vip: str | None
    fwmark: int | None
    error: str
    spec: ServiceSpec
    previous_spec: ServiceSpec | None


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A task. `name` is web.1, `container` its namespace and hostname, `since` when it came to its state."""

    id: str
    name: str
    service: str
    service_id: str
    service_version: int
    slot: int
    node: str | None
    image: str
    command: tuple[str, ...]
    ports: tuple[str, ...]
    desired_state: str
    state: str
    since: float
    message: str
    error: str
    exit_code: int | None
    pid: int | None
    serving: bool
    address: str | None
    gateway_address: str | None
    container: str
    created_at: float


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A node. `leader`: leads now. `asked`: is the one whose daemon answers. `applied`: the revision it has acknowledged."""

    id: str
    name: str
    address: str
    role: Role
    availability: Availability
    state: str
    leader: bool
    asked: bool
    labels: Mapping[str, str]
    engine: str
    mtu_bytes: int
    ingress_address: str | None
    applied: int
    api: str
    listeners: tuple[Listener, ...]
    failures: tuple[str, ...]
    error: str
    created_at: float


class ProgressInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How far a service is, as decide.progress has it. `seen` names this answer: asked with it, the server waits for another."""

    wanted: int
    running: int
    finished: int
    converged: bool
    message: str
    errors: tuple[str, ...]
    failed: str
    seen: str
    answering: tuple[str, ...] | None = None


class NodeAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's ports and tasks answered. `live`: it is up and takes part; `error`: why it could not be asked."""

    node: str
    live: bool = True
    answers: tuple[PortAnswer, ...] = ()
    error: str = ""


class NamespaceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace of a node's plan: its objects, and what would make them. "" is the node's own."""

    name: str
    items: tuple[Any, ...]
    commands: tuple[str, ...]
    ruleset: str
    iptables: str = ""


class PlanInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that routemesh wants in one node's kernel."""

    node: str
    namespaces: tuple[NamespaceInfo, ...]


class OpInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a node would change: `kind` is create, change or delete; `old` is what a change finds."""

    kind: str
    netns: str
    item: Any
    command: str
    old: Any = None


class DiffInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a node would change now."""

    node: str
    ops: tuple[OpInfo, ...]


class RepairInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has changed to have what its plan wants: what was wrong, and what was refused. `error`: it did nothing."""

    node: str
    mended: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    error: str = ""


class ServiceUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A new spec for a service, made from the one at `version`."""

    version: int
    spec: ServiceSpec


class NodeUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a node; None leaves it."""

    availability: Availability | None = None
    role: Role | None = None
    labels_add: Mapping[str, str] = {}
    labels_remove: tuple[str, ...] = ()


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, without what it holds. `not_after` is set for a certificate with its key."""

    id: str
    name: str
    created_at: float
    size_bytes: int
    services: tuple[str, ...]
    certificate_for: tuple[str, ...]
    not_after: float | None


class SecretCreate(msgspec.Struct, frozen=True, kw_only=True):
    """A new secret; `data` in base64."""

    name: str
    data: bytes


class ProxyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A task of the gateway."""

    node: str
    task: str
    state: str
    serving: bool
    address: str | None
    error: str


class RouteInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A route through the gateway. `tls` and `sticky` as in the labels; `servers` are the tasks that serve now."""

    host: str
    path: str
    service: str
    tls: str
    sticky: str
    servers: tuple[str, ...]


class GatewayStep(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of the gateway about a request."""

    at: str
    decision: str
    why: str


class GatewayExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request would go. `status` is what the gateway itself answers, 0 if it passes the request on."""

    steps: tuple[GatewayStep, ...]
    servers: tuple[str, ...]
    status: int


class GatewayInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway. `warnings` are about certificates; `keys_on_disk`: nodes with their keys on a disk → its file system.

    `refused`: services that proxies leave out → which do, and why.
    """

    service: str
    driver: GatewayDriver
    http_port: int
    https_port: int
    proxies: tuple[ProxyInfo, ...]
    routes: tuple[RouteInfo, ...]
    warnings: tuple[CertificateWarning, ...]
    keys_on_disk: Mapping[str, str] = {}
    refused: Mapping[str, str] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A text: what an error says, as the whole body of its answer, or a configuration."""

    message: str


def encode(value: object) -> bytes:
    """The JSON text of a shape."""
    return encoded(value)


def decode(kind: type[T], body: bytes) -> T:
    """What a peer of this version answered. Raises RoutemeshError for what is not such an answer."""
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=from_text)
    except msgspec.MsgspecError as exc:
        raise RoutemeshError(f"the daemon's answer is not understood ({exc}): are both of one version?") from exc


def parse(kind: type[T], body: bytes) -> T:
    """What a client asks for. Raises UserError, also for a field that does not exist."""
    try:
        understood = msgspec.json.decode(body, type=kind, dec_hook=from_text)
        unknown = _unknown(msgspec.json.decode(body), msgspec.to_builtins(understood, enc_hook=to_text, str_keys=True))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise UserError(f"the request's body is not what this path takes: {exc}") from exc
    if unknown:
        raise UserError(f"the request's body has an unknown field: {unknown}")
    return understood


def _unknown(given: object, understood: object, path: str = "$") -> str:
    """The path of the first key that the reader passed over, "" if there is none."""
    found = ""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            here = f"{path}.{key}"
            found = found or (_unknown(value, understood[key], here) if key in understood else here)
    elif isinstance(given, list) and isinstance(understood, list | tuple):
        for index, (value, other) in enumerate(zip(given, understood, strict=False)):
            found = found or _unknown(value, other, f"{path}[{index}]")
    return found


def error(status: int, body: bytes) -> RoutemeshError:
    """The error that an answer with `status` stands for."""
    try:
        message = msgspec.json.decode(body, type=Message).message
    except msgspec.MsgspecError:
        message = f"the daemon answered {status} without an explanation"
    kinds = (Forbidden, NotFound, Conflict, Unavailable, UserError)
    return next((kind for kind in kinds if kind.status == status), RoutemeshError)(message)
