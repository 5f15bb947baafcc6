"""What of the cluster a worker's node may see. PURE and memoryless: it depends on the state and the node alone.

All of what its data plane needs: nodes, networks, services, tasks with their addresses. Not the key and the tokens of the
cluster; of services without a task on the node not the commands and environments, where passwords may be; of secrets only those
that one of its own tasks uses, which are certificates where it runs the gateway.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from routemesh.model import NodeId, Secret, SecretId, Service, ServiceId, ServiceSpec, State, Task, Trust
from routemesh.pem import DEFAULT_CERTIFICATE
from routemesh.store.changes import KINDS, Edit, Object, table
from routemesh.values import replace


@dataclass(frozen=True, slots=True)
class _Open:
    """What a node sees that others do not: services whole, and secrets."""

    services: frozenset[ServiceId] = frozenset()
    secrets: frozenset[SecretId] = frozenset()


class Feed:
    """What a node is told, from one state to the next; from an empty one at first."""

    def __init__(self, node_id: NodeId, known: State | None = None) -> None:
        """`known`: the state that the node has been told already."""
        self._node_id = node_id
        self._state = known if known is not None else State()
        self._open = _open(self._state, node_id)

    def next(self, state: State) -> tuple[Edit, ...]:
        """What to tell it of a newer state."""
        before, opened = self._state, self._open
        edits = difference(before, state)
        self._state = state
        if any(self._may_open(edit, before) for edit in edits):
            self._open = _open(state, self._node_id)
        ids = dict.fromkeys((edit.kind, edit.id) for edit in edits)
        ids |= dict.fromkeys(("service", key) for key in opened.services ^ self._open.services)
        ids |= dict.fromkeys(("secret", key) for key in opened.secrets ^ self._open.secrets)
        return tuple(Edit(kind, key, self._shown(table(state, kind).get(key))) for kind, key in ids)

    def _may_open(self, edit: Edit, before: State) -> bool:
        """Whether a change may show the node more of others, or less."""
        if edit.kind == "task":
            tasks = (edit.value, table(before, "task").get(edit.id))
            return any(isinstance(task, Task) and task.node_id == self._node_id for task in tasks)
        return edit.kind in ("service", "secret")

    def _shown(self, value: Object | None) -> Object | None:
        match value:
            case Secret():
                return value if value.id in self._open.secrets else None
            case Service():
                return value if value.id in self._open.services else _closed_service(value)
            case Task():
                return value if value.node_id == self._node_id else replace(value, spec=_closed(value.spec))
            case Trust():
                return replace(value, key="", tokens={}, bridge="")
            case _:
                return value


_told: deque[tuple[State, State, tuple[Edit, ...]]] = deque(maxlen=8)
"""The last answers of `difference`: all workers ask for the same of one change."""


def difference(before: State, after: State) -> tuple[Edit, ...]:
    """What tells two states apart, as it is."""
    for old, new, edits in _told:
        if old is before and new is after:
            return edits
    edits = tuple(_different(before, after))
    _told.append((before, after, edits))
    return edits


def _different(before: State, after: State) -> Iterator[Edit]:
    for kind in KINDS:
        old, new = table(before, kind), table(after, kind)
        if old is new:
            continue
        yield from (Edit(kind, key, None) for key in old if key not in new)
        yield from (Edit(kind, key, value) for key, value in new.items() if old.get(key) is not value)


def _open(state: State, node_id: NodeId) -> _Open:
    own = [task for task in state.tasks.values() if task.node_id == node_id]
    services = frozenset(task.service_id for task in own)
    if all(task.spec.gateway is None for task in own):
        return _Open(services)
    names = {DEFAULT_CERTIFICATE, *_certificates(service.spec for service in state.services.values())}
    return _Open(services, frozenset(secret.id for secret in state.secrets.values() if secret.name in names))


def _certificates(specs: Iterable[ServiceSpec]) -> Set[str]:
    return {spec.http.certificate for spec in specs if spec.http is not None and spec.http.certificate}


def _closed_service(service: Service) -> Service:
    previous = service.previous_spec
    return replace(service, spec=_closed(service.spec), previous_spec=None if previous is None else _closed(previous))


def _closed(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, command=(), environment=())
