"""What a node is, once it has made or joined a cluster: `node.json` in its data directory, 0600.

`routemesh node` starts with it, so that neither a person nor a unit need say again what was said once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from routemesh.codec import encoded, from_text
from routemesh.credentials.files import replace_file
from routemesh.errors import Unavailable
from routemesh.model import Role
from routemesh.options import Membership, NodeOptions
from routemesh.values import replace

FORMAT = 1
_FILE = "node.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """The options that last. `store` "": the managers have it."""

    name: str
    advertise: IPv4Address
    role: Role
    store: str
    engine: str
    membership: Membership
    labels: Mapping[str, str] = field(default_factory=dict)
    ingress_subnet: IPv4Network | None = None
    gwbridge_subnet: IPv4Network | None = None
    format: int = FORMAT


class _Format(msgspec.Struct):
    format: int


def member_of(options: NodeOptions) -> Member:
    """What of a daemon's options lasts; they must have a membership."""
    assert options.membership is not None
    return Member(
        name=options.name,
        advertise=options.advertise,
        role=options.role,
        store=options.store,
        engine=options.engine,
        labels=options.labels,
        ingress_subnet=options.ingress_subnet,
        gwbridge_subnet=options.gwbridge_subnet,
        membership=options.membership,
    )


def options_of(member: Member, run_dir: Path, data_dir: Path) -> NodeOptions:
    """The options of the member's daemon."""
    return NodeOptions(
        name=member.name,
        advertise=member.advertise,
        store=member.store,
        run_dir=run_dir,
        data_dir=data_dir,
        engine=member.engine,
        role=member.role,
        labels=member.labels,
        ingress_subnet=member.ingress_subnet,
        gwbridge_subnet=member.gwbridge_subnet,
        membership=member.membership,
    )


def member(data_dir: Path) -> Member | None:
    """The member that a node is; None where it has made or joined no cluster. Raises Unavailable for a damaged file."""
    path = data_dir / _FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unavailable(f"can't read {path}: {exc.strerror}") from exc
    try:
        if msgspec.json.decode(text, type=_Format).format > FORMAT:
            raise Unavailable(f"{path} is of a newer version of routemesh: install that one again")
        return msgspec.json.decode(text, type=Member, dec_hook=from_text)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise Unavailable(f"{path} is damaged ({exc}): restore it, or remove it and join the cluster anew") from exc


def save(member: Member, data_dir: Path) -> None:
    """Keep it. Raises Unavailable."""
    try:
        replace_file(data_dir / _FILE, encoded(member).decode())
    except OSError as exc:
        raise Unavailable(f"can't write {data_dir / _FILE}: {exc.strerror}") from exc


def know(data_dir: Path, managers: tuple[str, ...]) -> None:
    """Keep where the managers answer, where that has changed."""
    found = member(data_dir)
    if found is not None and managers and found.membership.managers != managers:
        save(replace(found, membership=replace(found.membership, managers=managers)), data_dir)


def forget(data_dir: Path) -> None:
    """Be no member any more; a second call does nothing."""
    (data_dir / _FILE).unlink(missing_ok=True)
