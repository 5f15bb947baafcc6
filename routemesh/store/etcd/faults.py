"""What etcd's refusals and silence mean: what is tried elsewhere, what the store acts on, what a person has to mend. PURE.

etcd tells its errors apart by their text, which is part of its interface; a code stands for several. Source: etcd's
api/v3rpc/rpctypes/error.go and google/rpc/code.proto.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import assert_never

from routemesh.errors import Unavailable
from routemesh.options import EtcdCluster
from routemesh.store.etcd.messages import Refusal


class Compacted(Exception):
    """The revision that was asked for is forgotten."""


class NoLease(Exception):
    """The lease has ended."""


class Missed(Exception):
    """A member could not be asked, or can't answer now: another may. `hopeless`: nor will this one later."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless


class StaleToken(Exception):
    """The user has to prove anew who it is."""


class _Kind(Enum):
    COMPACTED = auto()
    NO_LEASE = auto()
    STALE_TOKEN = auto()
    FULL = auto()
    WRONG_PASSWORD = auto()
    NO_USER = auto()
    NO_AUTHENTICATION = auto()
    PERMISSION = auto()


_KINDS: Mapping[str, _Kind] = {
    "etcdserver: mvcc: required revision has been compacted": _Kind.COMPACTED,
    "etcdserver: requested lease not found": _Kind.NO_LEASE,
    "etcdserver: invalid auth token": _Kind.STALE_TOKEN,
    "etcdserver: revision of auth store is old": _Kind.STALE_TOKEN,
    "etcdserver: mvcc: database space exceeded": _Kind.FULL,
    "etcdserver: authentication failed, invalid user ID or password": _Kind.WRONG_PASSWORD,
    "etcdserver: user name is empty": _Kind.NO_USER,
    "etcdserver: user name not found": _Kind.WRONG_PASSWORD,
    "etcdserver: authentication is not enabled": _Kind.NO_AUTHENTICATION,
    "etcdserver: permission denied": _Kind.PERMISSION,
}
_CANCELLED, _TOO_LATE, _EXHAUSTED, _ABORTED, _INTERNAL, _UNAVAILABLE = 1, 4, 8, 10, 13, 14
_PASSING = {_CANCELLED, _TOO_LATE, _EXHAUSTED, _ABORTED, _INTERNAL, _UNAVAILABLE}
"""No leader, leader changed, stopping, too many requests: another member may do it, or this one later."""


def meaning(refusal: Refusal, place: EtcdCluster) -> Exception:
    """The exception that a refusal is for who asked: one of the above, or Unavailable with what a person is to do."""
    kind = _KINDS.get(refusal.text)
    user = place.keys.user
    match kind:
        case None if refusal.code in _PASSING:
            return Missed(refusal.text)
        case None:
            return Unavailable(f"{place} refuses: {refusal.text} (code {refusal.code})")
        case _Kind.COMPACTED:
            return Compacted()
        case _Kind.NO_LEASE:
            return NoLease()
        case _Kind.STALE_TOKEN:
            return StaleToken()
        case _Kind.FULL:
            return Unavailable(
                f"{place} is full (alarm NOSPACE) and takes no changes: compact and defragment it, then 'etcdctl alarm disarm'"
            )
        case _Kind.WRONG_PASSWORD:
            return Unavailable(f"{place} does not let user {user} in: correct --store-user or the line in {place.keys.password}")
        case _Kind.NO_USER:
            return Unavailable(f"{place} lets only users in that it knows: give --store-user and --store-password-file")
        case _Kind.NO_AUTHENTICATION:
            return Unavailable(f"{place} knows no users: leave out --store-user, or switch it on with 'etcdctl auth enable'")
        case _Kind.PERMISSION:
            return Unavailable(f"{place} lets user {user} not read and write {place.prefix}/: grant its role that prefix")
        case _:
            assert_never(kind)


class OutOfReach(Unavailable):
    """No member answered: what was asked of them may have been done all the same."""


def out_of_reach(place: EtcdCluster, missed: Mapping[str, str], leaderless: bool) -> OutOfReach:
    """No member could do it; `missed`: why, by member. `leaderless`: one that answers has no leader."""
    reasons = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in missed.items())
    if leaderless:
        return OutOfReach(f"{place} has no leader ({reasons}): more than half of its members must run and reach each other")
    return OutOfReach(f"{place} can't be used ({reasons}): is it running, and can it be reached from here?")
