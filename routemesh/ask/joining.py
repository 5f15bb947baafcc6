"""Joining: the managers' part, from a token to a certificate, and what becomes of certificates afterwards."""

import asyncio
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address

from routemesh import __version__, names
from routemesh.ask.context import Context
from routemesh.decide import admit
from routemesh.decide.liveness import LEADER, lease_name
from routemesh.errors import Conflict, Forbidden, UserError
from routemesh.model import Node, NodeId, Role, State, Trust
from routemesh.names import natural
from routemesh.pki import tokens
from routemesh.pki.shapes import Certified, Join, JoinToken, Member, Roots, Status
from routemesh.pki.subject import Subject
from routemesh.store.stream.client import endpoints

_LAST_PORT = 65535
_HTTPS = "https://"


async def roots(context: Context) -> Roots:
    """What anyone may know. Raises Conflict where nobody can join."""
    state = await context.store.snapshot()
    trust = admit.trust_of(state)
    name = context.this_node(state).name
    return Roots(cluster=trust.cluster, roots=trust.roots, node=name, now=context.now(), version=__version__)


async def join(context: Context, asked: Join, source: str) -> Certified:
    """Make a machine a node of the cluster, for a token; `source` is whence it asks.

    Raises Forbidden for a wrong token, Unavailable after too many of them, and what admit.register does; nothing is changed then.
    """
    state = await context.store.snapshot()
    trust = _signing(state)
    context.attempts.check(source)
    role = tokens.role_of(asked.secret, trust.tokens)
    if role is None:
        context.attempts.wrong(source)
        raise Forbidden("the token is not right any more; 'routemesh cluster token worker' on a manager prints the present one")
    if not 0 < asked.port <= _LAST_PORT:
        raise UserError(f"port {asked.port} is none; use 1 to {_LAST_PORT}")
    node = Node(
        id=NodeId(names.derive_id("node", asked.name, tokens.new_secret())),
        name=asked.name,
        address=_address(asked.address),
        role=role,
        labels=asked.labels,
        api=f"{_HTTPS}{asked.address}:{asked.port}",
    )
    chain, change = await _issued(trust, asked.request, node, context.now())
    committed = await context.store.update(
        lambda state: change(admit.register(state, node, context.now(), occupied=asked.occupied))
    )
    return _certified(committed, node.id, role, chain)


async def renew(context: Context, node_id: NodeId, request: str) -> Certified:
    """Give a node a new certificate, with the role that it has now. Raises Forbidden for one that was removed."""
    state = await context.store.snapshot()
    trust, node = _signing(state), state.nodes.get(node_id)
    if node is None:
        raise Forbidden(f"node {node_id} was removed from the cluster")
    chain, change = await _issued(trust, request, node, context.now())
    return _certified(await context.store.update(change), node.id, node.role, chain)


async def token(context: Context, role: Role, *, rotate: bool) -> JoinToken:
    """A role's token, with `rotate` a new one instead of the old."""
    state = await context.store.snapshot()
    _signing(state)
    if rotate:
        secret = tokens.new_secret()
        state = await context.store.update(lambda state: admit.rotate_token(state, role, secret))
    trust = admit.trust_of(state)
    if role is Role.MANAGER and trust.one_manager:
        raise Conflict("this cluster's store is a file of its only manager (sqlite): others can join as workers only")
    told = tokens.Token(tokens.digest(trust.roots[0]), trust.tokens[role])
    return JoinToken(role=role, token=str(told), managers=tuple(endpoints(state)))


async def rotate_root(context: Context) -> Status:
    """Let another root sign from now on; nodes renew their certificates by themselves, and tokens are other ones."""
    state = await context.store.snapshot()
    trust = _signing(state)
    certificate, key, bridge = await asyncio.to_thread(_new_root, trust, context.now())
    name = await asyncio.to_thread(_root_name, trust.roots[0])
    await context.store.update(lambda state: admit.rotate_root(state, certificate, key, bridge, name))
    return await status(context)


async def remove(context: Context, ref: str, *, force: bool) -> Node:
    """Remove a node; which it was."""
    state = await context.store.snapshot()
    node = admit.find_node(state, ref)
    if node.id == context.node_id:
        raise Conflict(f"{node.name} is the node that is asked: ask another manager, or use 'routemesh cluster leave' on it")
    await context.store.update(lambda state: admit.remove_node(state, node.id, context.now(), force=force))
    return node


async def status(context: Context) -> Status:
    """The cluster's members, their certificates and how far they are."""
    state, leases = await context.store.snapshot(), await context.store.leases()
    known = () if state.trust is None else state.trust.roots
    signing = await asyncio.to_thread(_root_name, known[0]) if known else ""
    leader = leases.get(LEADER)

    def member(node: Node) -> Member:
        lease = leases.get(lease_name(node.id))
        return Member(
            name=node.name,
            address=str(node.address),
            role=node.role,
            leads=leader is not None and leader.holder == node.id,
            state=node.state.value,
            behind=None if lease is None else max(state.revision - lease.value, 0),
            certified_until=node.certified_until,
            renewed=node.signed_by == signing,
        )

    return Status(
        cluster="" if state.cluster is None else state.cluster.id,
        revision=state.revision,
        roots=tuple(map(tokens.digest, known)),
        members=tuple(map(member, sorted(state.nodes.values(), key=lambda node: natural(node.name)))),
        now=context.now(),
    )


def check_manager(state: State) -> None:
    """Raises Conflict on a worker."""
    _signing(state)


def _signing(state: State) -> Trust:
    trust = admit.trust_of(state)
    if not trust.key:
        raise Conflict(f"this node is a worker: ask a manager ({', '.join(endpoints(state)) or 'none is known'})")
    return trust


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise UserError(f"address {text!r} is not an IPv4 address") from None


def _certified(state: State, node_id: NodeId, role: Role, chain: str) -> Certified:
    trust = admit.trust_of(state)
    return Certified(
        node_id=node_id, role=role, cluster=trust.cluster, chain=chain, roots=trust.roots, managers=tuple(endpoints(state))
    )


async def _issued(trust: Trust, request: str, node: Node, now: float) -> tuple[str, Callable[[State], State]]:
    """A certificate for a node, and the change that takes it down; in a thread, since the first one loads a library."""
    return await asyncio.to_thread(_issue, trust, request, node, now)


def _issue(trust: Trust, request: str, node: Node, now: float) -> tuple[str, Callable[[State], State]]:
    from routemesh.pki import certificates

    authority = certificates.Authority(trust.roots[0], trust.key)
    subject = Subject(node.id, node.role, trust.cluster)
    chain = certificates.issue(authority, request, subject, now, addresses=(node.address,), chain=trust.bridge)
    made = certificates.read(chain)

    def change(state: State) -> State:
        if admit.trust_of(state).roots != trust.roots:
            raise Conflict("the cluster's root certificate was changed meanwhile; try again")
        return admit.certified(state, node.id, made.not_after, made.signed_by, made.signed_by)

    return chain, change


def _new_root(trust: Trust, now: float) -> tuple[str, str, str]:
    from routemesh.pki import certificates

    made = certificates.make_root(trust.cluster, now)
    old = certificates.Authority(trust.roots[0], trust.key)
    return made.certificate, made.key, certificates.cross_signed(made.certificate, old, now)


def _root_name(root: str) -> str:
    from routemesh.pki import certificates

    return certificates.root_name(root)
