"""Labels that say how a service's connections are shared out. PURE.

routemesh.lb=SCHEDULER                  rr, wrr, lc, wlc, sh, mh, sed, nq (ipvsadm(8)), random; or a name from `ALIASES`
routemesh.affinity=client-ip[;timeout=3h]
routemesh.weight=W[,NODE=W…][,.SLOT=W…]   of every task; of those on a node; of one slot, as in web.2
routemesh.locality=any|prefer-local|local-only
"""

import re
from collections.abc import Mapping

from routemesh.errors import UserError
from routemesh.model import Balancing, Locality, Scheduler, Weights
from routemesh.names import NODE_NAME

LB, AFFINITY, WEIGHT, LOCALITY = "routemesh.lb", "routemesh.affinity", "routemesh.weight", "routemesh.locality"

ALIASES: Mapping[str, Scheduler] = {
    "weighted": Scheduler.WRR,
    "source-hash": Scheduler.SH,
    "maglev": Scheduler.MH,
    "least-conn": Scheduler.WLC,
}
TABLE: Mapping[str, tuple[str, ...]] = {
    LB: (*Scheduler, *ALIASES),
    AFFINITY: ("client-ip", "client-ip;timeout=3h"),
    WEIGHT: ("W[,NODE=W…][,.SLOT=W…]",),
    LOCALITY: tuple(Locality),
}

DEFAULT_AFFINITY_S = 3 * 60 * 60
"""As Kubernetes has it for sessionAffinity: three hours."""

MAX_AFFINITY_S = 31 * 24 * 60 * 60
"""What ipvsadm accepts as a persistence timeout at most (ipvsadm.c, MAX_TIMEOUT)."""

_MAX_WEIGHT = 65535
_SLOT = re.compile(r"\.[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s?)?")


def balancing(labels: Mapping[str, str]) -> Balancing:
    """What a service's labels say. Weights without a scheduler mean `wrr`. Raises UserError, which says what is allowed."""
    weights = _weights(labels.get(WEIGHT))
    default = Scheduler.WRR if weights != Weights() else Scheduler.RR
    return Balancing(
        scheduler=_scheduler(labels.get(LB), default),
        affinity_s=_affinity(labels.get(AFFINITY)),
        weights=weights,
        locality=_locality(labels.get(LOCALITY)),
    )


def _scheduler(text: str | None, default: Scheduler) -> Scheduler:
    if text is None:
        return default
    if text in ALIASES:
        return ALIASES[text]
    if text not in tuple(Scheduler):
        raise UserError(f"label {LB}={text!r} is not a scheduler; use one of {', '.join((*Scheduler, *ALIASES))}")
    return Scheduler(text)


def _affinity(text: str | None) -> int:
    if text is None:
        return 0
    kind, _, option = text.partition(";")
    name, _, value = option.partition("=")
    seconds = _seconds(value) if option else DEFAULT_AFFINITY_S
    if kind != "client-ip" or (option and name != "timeout") or seconds is None:
        raise UserError(f"label {AFFINITY}={text!r} is not of the form client-ip or client-ip;timeout=3h (1s to 31d)")
    return seconds


def _seconds(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return total if 1 <= total <= MAX_AFFINITY_S else None


def _weights(text: str | None) -> Weights:
    if text is None:
        return Weights()
    given: dict[str, int] = {}
    for number, entry in enumerate(text.split(",")):
        whose, equals, weight = entry.strip().rpartition("=")
        if not _NUMBER.fullmatch(weight) or int(weight) > _MAX_WEIGHT:
            raise UserError(f"label {WEIGHT}={text!r}: {weight!r} is not a weight; use 0-{_MAX_WEIGHT}")
        if not (_SLOT.fullmatch(whose) or NODE_NAME.fullmatch(whose) or (number == 0 and not equals)):
            raise UserError(f"label {WEIGHT}={text!r}: {entry!r} is not of the form W (first), NODE=W or .SLOT=W")
        if whose in given:
            raise UserError(f"label {WEIGHT}={text!r} gives {whose} two weights; name each node and slot once")
        given[whose] = int(weight)
    return Weights(
        default=given.pop("", 1),
        nodes={name: weight for name, weight in given.items() if not name.startswith(".")},
        slots={int(name[1:]): weight for name, weight in given.items() if name.startswith(".")},
    )


def _locality(text: str | None) -> Locality:
    if text is None:
        return Locality.ANY
    if text not in tuple(Locality):
        raise UserError(f"label {LOCALITY}={text!r} has an unknown value; use {', '.join(Locality)}")
    return Locality(text)
