"""Labels of a service that have a meaning: what they say, what they refuse. PURE.

The one place that understands them. `interpret` is called once, as a spec is admitted, whichever front it came by.
"""

from collections.abc import Iterable, Mapping

from routemesh.errors import UserError
from routemesh.labels import balance, health, http
from routemesh.labels.health import HEALTH_HTTP, is_probed, without
from routemesh.model import ServiceSpec
from routemesh.values import replace

__all__ = ["HEALTH_HTTP", "LABELS", "TABLE", "interpret", "is_probed", "without"]

TABLE: Mapping[str, tuple[str, ...]] = {**health.TABLE, **balance.TABLE, **http.TABLE}
"""Every label with a meaning, and the words or forms that its value can have, where there are few."""

LABELS = tuple(TABLE)

_OURS = "routemesh."


def interpret(spec: ServiceSpec, present: ServiceSpec | None = None) -> ServiceSpec:
    """The spec with what its labels say filled in; the same once more is the same. Raises UserError.

    What labels say can't be set beside them: `balancing` and `http` are as labels have them, as the `present` spec has them
    (which a client changes and sends back), or as in a spec that says nothing of them.
    """
    _check_known(spec.labels)
    made = replace(
        spec,
        client_ip=health.client_ip(spec),
        health=health.health(spec),
        balancing=balance.balancing(spec.labels),
        http=http.http(spec.labels, spec.publish),
    )
    unsaid = ServiceSpec(name=spec.name)
    for field, labels in (("balancing", balance.TABLE), ("http", http.TABLE)):
        known = (getattr(each, field) for each in (unsaid, made, present) if each is not None)
        if getattr(spec, field) not in known:
            raise UserError(f"field {field} can't be set: labels say it ({', '.join(labels)}); leave it out")
    return made


def _check_known(labels: Iterable[str]) -> None:
    for label in labels:
        if label.startswith(_OURS) and label not in TABLE:
            kin = (known for known in TABLE if known.startswith(http.PREFIX) == label.startswith(http.PREFIX))
            raise UserError(f"label {label!r} is unknown; the labels of routemesh are: {', '.join(kin)}")
