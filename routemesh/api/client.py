"""The API as the command line uses it."""

import http.client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from routemesh import wire
from routemesh.api.connections import Connection, Way, connection, gone
from routemesh.errors import Unavailable, UserError
from routemesh.model import Protocol, Role, ServiceSpec

Network = Mapping[str, Any]
if TYPE_CHECKING:
    from routemesh.doctor import Report
    from routemesh.explain.nouns import Explanation
    from routemesh.pki.shapes import JoinToken, Status
    from routemesh.proxy.request import Request
    from routemesh.snapshot import ClusterSnapshot

T = TypeVar("T")


class Client:
    """One daemon. Every method raises RoutemeshError, with the daemon's own message where it sent one."""

    def __init__(self, way: Way) -> None:
        self._way = way

    # Services. `ref` is a name, an id or the beginning of an id.

    def services(self) -> list[wire.ServiceInfo]:
        """All services, by name."""
        return self._get("/services", list[wire.ServiceInfo])

    def service(self, ref: str) -> wire.ServiceInfo:
        """One service."""
        return self._get(f"/services/{_quoted(ref)}", wire.ServiceInfo)

    def create_service(self, spec: ServiceSpec) -> wire.ServiceInfo:
        """Make a service; it converges in the background."""
        return self._ask("POST", "/services", wire.ServiceInfo, spec)

    def update_service(self, ref: str, update: wire.ServiceUpdate) -> wire.ServiceInfo:
        """Give a service a new spec. Raises Conflict when somebody else was faster."""
        return self._ask("POST", f"/services/{_quoted(ref)}", wire.ServiceInfo, update)

    def remove_service(self, ref: str) -> None:
        """Remove a service; its tasks stop in the background."""
        self._ask("DELETE", f"/services/{_quoted(ref)}", wire.ServiceInfo)

    def tasks(self, ref: str) -> list[wire.TaskInfo]:
        """A service's tasks, slot by slot, each slot's newest first."""
        return self._get(f"/services/{_quoted(ref)}/tasks", list[wire.TaskInfo])

    def progress(self, ref: str, seen: str = "", wait_s: float = 0.0) -> wire.ProgressInfo:
        """How far a service is; waits until that is another answer than `seen`, at most `wait_s` seconds."""
        return self._get(f"/services/{_quoted(ref)}/progress", wire.ProgressInfo, seen=seen, wait=f"{wait_s:.3f}")

    def answers(self, ref: str) -> list[wire.NodeAnswers]:
        """What a service's published ports answer on each node, and its tasks."""
        return self._get(f"/services/{_quoted(ref)}/answers", list[wire.NodeAnswers])

    def logs(self, ref: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """The lines that a service's tasks wrote, each with its task and node in front; endless with `follow`."""
        query = {"follow": str(int(follow))} | ({} if tail is None else {"tail": str(tail)})
        return self._lines(f"/services/{_quoted(ref)}/logs", query)

    # The gateway and secrets.

    def gateway(self, *, keys: bool = False) -> wire.GatewayInfo:
        """The gateway, with `keys` as they are on its nodes. Raises NotFound when there is none."""
        return self._get("/gateway", wire.GatewayInfo, keys=str(int(keys)))

    def gateway_config(self, program: str, to: str) -> str:
        """A configuration for a proxy outside of the cluster."""
        return self._get("/gateway/config", wire.Message, **{"for": program, "to": to}).message

    def gateway_explain(self, request: "Request") -> wire.GatewayExplanation:
        """Where a request would go, and why."""
        return self._get(f"/gateway/explain?{urlencode(_words(request))}", wire.GatewayExplanation)

    def secrets(self) -> list[wire.SecretInfo]:
        """All secrets, by name."""
        return self._get("/secrets", list[wire.SecretInfo])

    def create_secret(self, name: str, data: bytes) -> wire.SecretInfo:
        """Keep a secret."""
        return self._ask("POST", "/secrets", wire.SecretInfo, wire.SecretCreate(name=name, data=data))

    def remove_secret(self, name: str) -> None:
        """Forget a secret that nothing uses."""
        self._ask("DELETE", f"/secrets/{_quoted(name)}", wire.SecretInfo)

    # The cluster.

    def cluster(self) -> "Status":
        """The members of the cluster."""
        from routemesh.pki.shapes import Status

        return self._get("/cluster", Status)

    def join_token(self, role: Role, *, rotate: bool = False) -> "JoinToken":
        """The token by which one joins, with `rotate` a new one."""
        from routemesh.pki.shapes import JoinToken

        return self._ask("POST" if rotate else "GET", f"/cluster/tokens/{role}", JoinToken)

    def rotate_root(self) -> "Status":
        """Make another root certificate. Raises Conflict while the last change is not over."""
        from routemesh.pki.shapes import Status

        return self._ask("POST", "/cluster/root", Status)

    # Nodes and networks.

    def nodes(self) -> list[wire.NodeInfo]:
        """All nodes, by name."""
        return self._get("/nodes", list[wire.NodeInfo])

    def node(self, ref: str) -> wire.NodeInfo:
        """One node; `self` is the one that is asked."""
        return self._get(f"/nodes/{_quoted(ref)}", wire.NodeInfo)

    def update_node(self, ref: str, update: wire.NodeUpdate) -> wire.NodeInfo:
        """Change a node's availability, role or labels."""
        return self._ask("POST", f"/nodes/{_quoted(ref)}", wire.NodeInfo, update)

    def remove_node(self, ref: str, *, force: bool = False) -> wire.NodeInfo:
        """Forget a node. Raises Conflict for one that is up, unless by `force`."""
        return self._ask("DELETE", f"/nodes/{_quoted(ref)}?force={int(force)}", wire.NodeInfo)

    def node_tasks(self, ref: str) -> list[wire.TaskInfo]:
        """A node's tasks, the newest first."""
        return self._get(f"/nodes/{_quoted(ref)}/tasks", list[wire.TaskInfo])

    def plan(self, ref: str) -> wire.PlanInfo:
        """What routemesh wants in a node's kernel."""
        return self._get(f"/nodes/{_quoted(ref)}/plan", wire.PlanInfo)

    def diff(self, ref: str) -> wire.DiffInfo:
        """What a node would change in its kernel now."""
        return self._get(f"/nodes/{_quoted(ref)}/diff", wire.DiffInfo)

    def explain(self, target: str, client: str = "", outside: str = "", request: "Request | None" = None) -> "Explanation":
        """Which way a connection of `client` to NODE:PORT[/udp] takes, and a request on through the gateway.

        `outside`: an address that is not a node's.
        """
        from routemesh.explain.nouns import Explanation

        query = [("target", target), ("client", client), ("outside", outside)]
        return self._get(f"/explain?{urlencode(query + (_words(request) if request else []))}", Explanation)

    def doctor(self, *, passive: bool = False) -> "Report":
        """What is wrong with the cluster; `passive`: no task is asked."""
        from routemesh.doctor import Report

        return self._get("/doctor", Report, passive=str(int(passive)))

    def repair(self) -> list[wire.RepairInfo]:
        """Let every node bring its kernel to its plan, now."""
        return self._ask("POST", "/doctor/repair", list[wire.RepairInfo])

    @contextmanager
    def trace(self, target: str, **query: str) -> "Iterator[Conversation]":
        """Begin a trace of a connection to NODE:PORT[/udp]: ask.traces says what is asked and said. It ends with the block."""
        with closing(self._connection()) as connection:
            path = f"{wire.PREFIX}/trace?{urlencode({'target': target, **query})}"
            try:
                connection.putrequest("POST", path)
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
                answer = connection.getresponse()
                if answer.status >= http.client.BAD_REQUEST:
                    raise wire.error(answer.status, answer.read())
                connection.settimeout(None)
                yield Conversation(connection, answer)
            except (OSError, http.client.HTTPException) as exc:
                raise gone(self._way, exc) from exc

    def snapshot(self, ports: Iterable[tuple[Protocol, int]] = ()) -> "ClusterSnapshot":
        """Everything in the kernels of all nodes; with `ports` only connections that asked for one of these."""
        from routemesh.codec.plain import restored  # knows every noun, which takes time to load
        from routemesh.snapshot import ClusterSnapshot

        query = urlencode([("port", f"{number}/{protocol}") for protocol, number in ports])
        return restored(ClusterSnapshot, self._ask("GET", f"/snapshot?{query}", dict[str, Any]))

    def networks(self) -> list[Network]:
        """The networks as the node that answers has them, in Docker's shape."""
        return self._get("/networks", list[Network])

    def network(self, ref: str, *, verbose: bool = False) -> Network:
        """One network, in Docker's shape."""
        return self._get(f"/networks/{_quoted(ref)}", dict[str, Any], verbose=str(int(verbose)))

    def ping(self) -> None:
        """Return if the daemon answers."""
        with closing(self._connection()) as connection:
            self._answer(connection, "GET", "/_ping").read()

    # How it is asked.

    def _get(self, path: str, kind: type[T], /, **query: str) -> T:
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path, kind)

    def _ask(self, method: str, path: str, kind: type[T], body: object = None) -> T:
        with closing(self._connection()) as connection:
            answer = self._answer(connection, method, path, b"" if body is None else wire.encode(body))
            try:
                return wire.decode(kind, answer.read())
            except (OSError, http.client.HTTPException) as exc:
                raise gone(self._way, exc) from exc

    def _lines(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        with closing(self._connection()) as connection:
            answer = self._answer(connection, "GET", f"{path}?{urlencode(query)}")
            connection.settimeout(None)
            try:
                yield from answer
            except (OSError, http.client.HTTPException) as exc:
                raise gone(self._way, exc) from exc

    def _connection(self) -> Connection:
        return connection(self._way)

    def _answer(self, connection: Connection, method: str, path: str, body: bytes = b"") -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            connection.request(method, wire.PREFIX + path, body or None, headers)
            answer = connection.getresponse()
            if answer.status >= http.client.BAD_REQUEST:
                raise wire.error(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as exc:
            raise gone(self._way, exc) from exc
        return answer


class Conversation:
    """Lines of JSON to and from a daemon, over one request."""

    def __init__(self, connection: Connection, answer: http.client.HTTPResponse) -> None:
        self._connection, self._answer = connection, answer

    def say(self, what: object) -> None:
        """Send a line, as a chunk of the request's body (RFC 9112)."""
        line = wire.encode(what) + b"\n"
        self._connection.send(b"%x\r\n%s\r\n" % (len(line), line))

    def hear(self, kind: type[T]) -> T:
        """The next line. Raises RoutemeshError when the daemon has ended."""
        line = self._answer.readline()
        if not line:
            raise Unavailable("the daemon went away while it traced; try again")
        return wire.decode(kind, line)


def _words(request: "Request") -> list[tuple[str, str]]:
    """A request as a query."""
    words = [("host", request.host), ("path", request.path), ("tls", str(int(request.tls))), ("cookie", request.cookie)]
    words += [("header", f"{name}:{value}") for name, value in request.headers]
    return words + ([("source", str(request.source))] if request.source else [])


def _quoted(ref: str) -> str:
    if not ref:
        raise UserError("an empty name names nothing")
    return quote(ref, safe="")
