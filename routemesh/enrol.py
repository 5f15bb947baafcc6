"""`routemesh cluster init`, `join` and `leave`: what makes a machine a node of a cluster before its daemon starts.

No daemon runs meanwhile. What lasts is in the node's data directory, and the daemon starts with it. What fails changes nothing.
"""

import asyncio
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from routemesh import identity, names, wire
from routemesh.api.door import listening
from routemesh.credentials import member, tls
from routemesh.credentials.files import Credentials, Place
from routemesh.decide import admit
from routemesh.errors import Conflict, RoutemeshError, Unavailable, UserError
from routemesh.kernel.linux import LinuxKernel
from routemesh.model import Role, State, Trust
from routemesh.options import Membership, NodeOptions
from routemesh.pki import certificates, tokens
from routemesh.pki.shapes import Certified, Join, Roots
from routemesh.pki.subject import Subject, role_name
from routemesh.store.opening import open_store
from routemesh.values import replace

MAX_SKEW_S = 300.0
"""By how much a machine's clock may differ from the manager's: certificates count from an hour before they are made."""
_ANSWER_S = 15.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manager:
    """Where a manager answers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def init(options: NodeOptions, port: int) -> str:
    """Make a cluster that others can join, with this machine as its first manager; the token of a worker.

    A cluster that the store holds already becomes that cluster. Raises Conflict, Unavailable and UserError, see the module.
    """
    with _alone(options):
        _check_listening(options, port)
        return asyncio.run(_found(options, port))


async def _found(options: NodeOptions, port: int) -> str:
    store = await open_store(options.place)
    try:
        state = await store.snapshot()
        cluster = state.cluster.id if state.cluster is not None else names.derive_id("cluster", options.name, tokens.new_secret())
        known = next((node.id for node in state.nodes.values() if node.name == options.name), None)
        node_id = known or names.derive_id("node", options.name, tokens.new_secret())
        trust, credentials = _authority(cluster, Subject(node_id, Role.MANAGER, cluster), options.advertise)
        admit.begin_trust(state, trust)
        Place(options.data_dir).save(credentials)
        try:
            await store.update(lambda state: admit.begin_trust(state, trust))
        except RoutemeshError:
            Place(options.data_dir).remove()
            raise
    finally:
        await store.close()
    own = f"{options.advertise}:{port}"
    membership = Membership(node_id=node_id, cluster=cluster, port=port, managers=(own,))
    member.save(member.member_of(replace(options, role=Role.MANAGER, membership=membership)), options.data_dir)
    return str(tokens.Token(tokens.digest(trust.roots[0]), trust.tokens[Role.WORKER]))


def _authority(cluster: str, subject: Subject, address: IPv4Address) -> tuple[Trust, Credentials]:
    now = time.time()
    root, key = certificates.make_root(cluster, now), certificates.new_key()
    chain = certificates.issue(root, certificates.request(key), subject, now, addresses=(address,))
    secrets = {role: tokens.new_secret() for role in Role}
    trust = Trust(cluster=cluster, roots=(root.certificate,), key=root.key, tokens=secrets)
    return trust, Credentials(key, chain, trust.roots)


def join(options: NodeOptions, port: int, token: str, manager: Manager) -> NodeOptions:
    """Become a node of the cluster whose token it is; what its daemon will start with.

    The manager is believed because the token names its root certificate; only then is the token's secret sent.
    """
    wanted = tokens.parse(token)
    if manager.host in (str(options.advertise), "localhost") or manager.host.startswith("127."):
        raise UserError(f"{manager} is this machine itself: give the address of a manager of the cluster to join")
    with _alone(options):
        _check_listening(options, port)
        root = _known_root(manager, wanted)
        key = certificates.new_key()
        with closing(LinuxKernel(options.run_dir, options.advertise)) as kernel:
            occupied = kernel.occupied()
        asked = Join(
            secret=wanted.secret,
            request=certificates.request(key),
            name=options.name,
            address=str(options.advertise),
            port=port,
            labels=options.labels,
            occupied=occupied,
        )
        given = _ask(manager, tls.believing(root), role_name(Role.MANAGER), "POST", "/cluster/join", Certified, asked)
        Place(options.data_dir).save(Credentials(key, given.chain, given.roots))
        membership = Membership(
            node_id=given.node_id, cluster=given.cluster, port=port, managers=given.managers or (str(manager),)
        )
        joined = replace(options, role=given.role, store="", membership=membership)
        member.save(member.member_of(joined), options.data_dir)
        return joined


def _known_root(manager: Manager, wanted: tokens.Token) -> str:
    """The root certificate that the token names, as the manager told it. Raises Conflict where it told none, or other times."""
    told = _ask(manager, tls.believing_nobody_yet(), None, "GET", "/cluster/roots", Roots)
    skew_s = time.time() - told.now
    if abs(skew_s) > MAX_SKEW_S:
        ahead = "ahead of" if skew_s > 0 else "behind"
        raise Conflict(f"this machine's clock is {abs(skew_s) / 60:.0f} min {ahead} {told.node}'s: timedatectl set-ntp true")
    root = next((root for root in told.roots if tokens.is_of(wanted, root)), None)
    if root is None:
        raise Conflict(
            f"the token is not of the cluster of {manager}: it is another cluster's, or older than its root certificate; "
            "print a new one there with 'routemesh cluster token worker'"
        )
    return root


def leave(options: NodeOptions, *, force: bool) -> str:
    """Be no member any more; the node's name. Raises Conflict where it is none, and for a manager unless by `force`."""
    if (found := member.member(options.data_dir)) is None:
        raise Conflict("this machine is in no cluster that it made or joined: nothing to leave")
    if found.role is Role.MANAGER and not force:
        raise Conflict(f"{found.name} is a manager: without it its cluster can't be changed; --force leaves it nevertheless")
    with identity.alone(options.run_dir, options.data_dir):
        if found.store:
            asyncio.run(_end_trust(member.options_of(found, options.run_dir, options.data_dir)))
        member.forget(options.data_dir)
        Place(options.data_dir).remove()
        identity.forget_cluster(options.run_dir, options.data_dir)
    return found.name


async def _end_trust(options: NodeOptions) -> None:
    store = await open_store(options.place)
    try:
        await store.update(_without_trust)
    finally:
        await store.close()


def _without_trust(state: State) -> State:
    return replace(state, trust=None)


@contextmanager
def _alone(options: NodeOptions) -> Iterator[None]:
    """No daemon runs, and the machine is a member of nothing. Raises Conflict, UserError, Unavailable."""
    if os.geteuid() != 0:
        raise UserError("a node's files are root's: use sudo")
    if (found := member.member(options.data_dir)) is not None:
        raise Conflict(
            f"this machine is {found.name} of cluster {found.membership.cluster} already: start its daemon with 'routemesh node' "
            "or leave that cluster with 'routemesh cluster leave'"
        )
    with identity.traceless(options.run_dir, options.data_dir) as kept:
        for directory in (options.run_dir, options.data_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with identity.alone(options.run_dir, options.data_dir):
            yield
        kept()


def _check_listening(options: NodeOptions, port: int) -> None:
    listening(options.advertise, port).close()


# --- asking a manager --------------------------------------------------------------------------------------------


def _ask(
    manager: Manager, context: ssl.SSLContext, name: str | None, method: str, path: str, kind: type[T], body: object = None
) -> T:
    """One question without a certificate of one's own. Raises what the manager refuses with, or Unavailable."""
    connection = _Connection(manager, context, name)
    try:
        connection.request(method, wire.PREFIX + path, wire.encode(body) if body is not None else None)
        answer = connection.getresponse()
        said = answer.read()
    except ssl.SSLCertVerificationError as exc:
        raise Conflict(f"{manager} is no manager of the cluster: its certificate is not believed ({exc.verify_message})") from exc
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
        raise Unavailable(
            f"no manager answers at {manager}: {reason}: is its daemon running, and is TCP port {manager.port} open to here?"
        ) from exc
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST:
        raise wire.error(answer.status, said)
    return wire.decode(kind, said)


class _Connection(http.client.HTTPConnection):
    def __init__(self, manager: Manager, context: ssl.SSLContext, name: str | None) -> None:
        super().__init__(manager.host, manager.port, timeout=_ANSWER_S)
        self._context, self._name = context, name

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._context.wrap_socket(raw, server_hostname=self._name)


def local_address(manager: Manager) -> IPv4Address:
    """This machine's address on its way to a manager. Raises Unavailable where there is none."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((manager.host, manager.port))
            return IPv4Address(probe.getsockname()[0])
    except OSError as exc:
        raise Unavailable(f"no IPv4 route leads to {manager}: {exc.strerror}") from exc
