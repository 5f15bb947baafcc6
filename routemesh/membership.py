"""A daemon among others: it listens at its address, keeps its certificate fresh, and asks others with it."""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial

from routemesh import loops
from routemesh.api.door import Listener
from routemesh.api.server import serving_network
from routemesh.ask import joining
from routemesh.ask.context import Context
from routemesh.credentials import member, tls
from routemesh.credentials.files import Credentials, Place
from routemesh.model import NodeId
from routemesh.options import Membership, NodeOptions
from routemesh.pki import certificates
from routemesh.pki.shapes import Certified, Renew
from routemesh.store.stream.client import endpoints
from routemesh.store.stream.managers import Managers
from routemesh.values import replace

log = logging.getLogger(__name__)

LOOK_S = 60.0
"""How often a certificate is looked at where nothing is written."""
_RENEW = "/cluster/renew"

Certify = Callable[[str], Awaitable[Certified]]
"""Gets a certificate for a request."""


class Member:
    """One daemon's part in a cluster that others can join."""

    def __init__(self, options: NodeOptions, membership: Membership, now: Callable[[], float] = time.time) -> None:
        """`now`: seconds since the epoch. Raises Unavailable where the certificate can't be read."""
        self._options, self._membership, self._now = options, membership, now
        self._place = Place(options.data_dir)
        self._load(self._place.load())
        self._listener: Listener | None = None
        self._wake = asyncio.Event()
        self._told: tuple[str, ...] = ()
        self.managers = Managers(membership.managers, self.connecting)

    @property
    def node_id(self) -> NodeId:
        """The node that its certificate names."""
        return NodeId(self._membership.node_id)

    def _load(self, kept: Credentials) -> None:
        self._kept, self.certificate = kept, certificates.read(kept.chain)
        self._signing = certificates.root_name(kept.roots[0])
        self._tls = tls.connecting(self._place)

    def connecting(self) -> ssl.SSLContext:
        """What to ask others with."""
        return self._tls

    async def run(self, context: Context, troubles: loops.Troubles) -> None:
        """Answer others until cancelled. Raises Unavailable where nothing can listen at the address."""
        at, port = self._options.advertise, self._membership.port
        async with serving_network(context, at, port, lambda: tls.listening(self._place)) as listener:
            self._listener = listener
            await loops.together(
                watch=loops.follow("certificate's watch", context.store.watch, self._something_was_written, troubles),
                certificate=loops.rounds("certificate", partial(self._look, context), self._wake, troubles),
            )

    async def _something_was_written(self) -> None:
        self._wake.set()

    async def _look(self, context: Context) -> float:
        """Believe whom the cluster believes; renew the certificate at half of its time, or as another root or role wants it."""
        state = await context.store.snapshot()
        node = state.nodes.get(self.node_id)
        if state.trust is None:
            return LOOK_S
        if node is None:
            raise loops.EndsDaemon(
                f"{self._options.name} is not of the cluster any more: 'routemesh cluster leave --force', then join again"
            )
        if state.trust.roots != self._kept.roots:
            await self._take(replace(self._kept, roots=state.trust.roots))
        is_old = self._now() >= self.certificate.renew_at()
        if is_old or self.certificate.signed_by != self._signing or self.certificate.subject.role is not node.role:
            await self._renew(partial(joining.renew, context, node.id) if state.trust.key else self._ask_manager)
        if (managers := tuple(endpoints(state))) != self._told:
            await asyncio.to_thread(member.know, self._options.data_dir, managers)
            self._told = managers
        return LOOK_S

    async def _ask_manager(self, request: str) -> Certified:
        return await self.managers.post(_RENEW, Renew(request=request), Certified)

    async def _renew(self, certify: Certify) -> None:
        key = certificates.new_key()
        given = await certify(certificates.request(key))
        await self._take(Credentials(key, given.chain, given.roots))
        log.info("certificate=renewed role=%s until=%.0f", given.role, self.certificate.not_after)

    async def _take(self, credentials: Credentials) -> None:
        await asyncio.to_thread(self._place.save, credentials)
        self._load(credentials)
        if self._listener is not None:
            await self._listener.open()
