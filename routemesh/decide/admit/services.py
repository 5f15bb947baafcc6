"""Services that people create, change and remove. PURE."""

from collections.abc import Callable

from routemesh.decide.admit.engines import check_engines, check_marks
from routemesh.decide.admit.find import find_service
from routemesh.decide.admit.ports import check_addresses, check_ports
from routemesh.decide.admit.routes import check_gateway, check_routes
from routemesh.decide.admit.spec import checked
from routemesh.errors import Conflict, UserError
from routemesh.model import Service, ServiceId, ServiceSpec, State
from routemesh.names import derive_id
from routemesh.values import replace


def create_service(state: State, spec: ServiceSpec, now: float) -> State:
    """Add a service; its tasks follow with the manager's next step."""
    spec = checked(spec)
    for other in state.services.values():
        # Names are looked up in DNS, which does not know case.
        if other.spec.name.casefold() == spec.name.casefold():
            raise Conflict(f"a service named {other.spec.name!r} exists (id {other.id}); choose another name or remove it first")
    service = Service(
        id=ServiceId(derive_id("service", spec.name, state.revision, now)), spec=spec, version=1, created_at=now, updated_at=now
    )
    _check_room(state, service)
    return _with(state, service)


def update_service(state: State, service: str, change: Callable[[ServiceSpec], ServiceSpec], now: float) -> State:
    """Give a service the spec that `change` makes of its present one; an equal spec changes nothing."""
    old = find_service(state, service)
    spec = checked(change(old.spec), old.spec)
    if spec == old.spec:
        return state
    instead = "create a new service and remove this one"
    if spec.name != old.spec.name:
        raise UserError(f"service {old.spec.name} can't be renamed to {spec.name!r}; {instead}")
    if spec.mode is not old.spec.mode:
        raise UserError(f"service {spec.name} can't change from {old.spec.mode} to {spec.mode}; {instead}")
    new = replace(old, spec=spec, previous_spec=old.spec, version=old.version + 1, updated_at=now)
    _check_room(state, new)
    return _with(state, new)


def remove_service(state: State, service: str) -> State:
    """Take a service away; the manager's next step retires its tasks."""
    gone = find_service(state, service).id
    return replace(state, services={key: other for key, other in state.services.items() if key != gone})


def _check_room(state: State, service: Service) -> None:
    check_ports(state, service)
    check_addresses(state, service)
    check_marks(state, service)
    check_engines(state, service)
    check_gateway(state, service)
    check_routes(state, service)


def _with(state: State, service: Service) -> State:
    return replace(state, services={**state.services, service.id: service})
