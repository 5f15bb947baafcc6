"""Which form stored objects have, and how those of an older version are brought to it. PURE.

A store keeps the number of the form beside its objects. To change what an object looks like is one more number and one more step
here, from the JSON of the form before to the JSON of the form after; nothing else ever meets an old form. A field that is new and
may be missing, or one that is no longer looked at, needs no step (store.codec).
"""

from collections.abc import Callable, Mapping
from typing import Any

Json = Mapping[str, Any]
Objects = Mapping[str, Mapping[str, Json]]
"""What a store holds: kind → id → the object's JSON as Python has it."""

Step = Callable[[Objects], Objects]


def _to_2(objects: Objects) -> Objects:
    """A network is an object, to which tasks, nodes and services are attached; it was fields of the cluster, and their address.

    Leases, which are not objects, are judged by when they were last seen renewed, and no longer hold a time.
    """
    clusters = objects.get("cluster", {})
    networks = {cluster["ingress_id"]: _ingress(cluster) for cluster in clusters.values()}
    ingress = next(iter(networks), None)
    return {
        **objects,
        "cluster": {key: _without(cluster, "ingress_subnet", "vni") for key, cluster in clusters.items()},
        "network": networks,
        **{
            kind: {key: _attached(each, field, attachments, ingress) for key, each in objects.get(kind, {}).items()}
            for kind, field, attachments in (
                ("node", "ingress_address", "attachments"),
                ("service", "vip", "vips"),
                ("task", "address", "attachments"),
            )
        },
    }


def _ingress(cluster: Json) -> Json:
    return {
        "id": cluster["ingress_id"],
        "name": "ingress",
        "kind": "ingress",
        "subnet": cluster.get("ingress_subnet", "10.0.0.0/24"),
        "created_at": cluster["created_at"],
        "vni": cluster.get("vni", 4096),
    }


def _attached(value: Json, field: str, attachments: str, network: str | None) -> Json:
    address = value.get(field)
    attached = [{"network_id": network, "address": address}] if address is not None else []
    return {**_without(value, field), attachments: attached}


def _without(value: Json, *fields: str) -> Json:
    return {key: each for key, each in value.items() if key not in fields}


STEPS: Mapping[int, Step] = {1: _to_2}
"""By the number of the form that a step takes."""

FORMAT = 2
"""The form that this version writes."""


def upgraded(objects: Objects, stored: int) -> Objects:
    """The objects of form `stored` in the present one."""
    for number in range(stored, FORMAT):
        objects = STEPS[number](objects)
    return objects
