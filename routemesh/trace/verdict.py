"""What a trace comes to, in one line: what was seen, and whether that was predicted. PURE."""

from routemesh.explain.nouns import Way
from routemesh.reasons.causes import AnswerUntold, NotAnswering, Untold
from routemesh.trace.nouns import Trace, Where


def is_untold(way: Way) -> bool:
    """Whether nobody could predict how it ends."""
    return way.reason is not None and way.reason.is_a(Untold, AnswerUntold)


def is_silent(way: Way) -> bool:
    """Whether its packets arrive at a server that is known to answer nobody."""
    return way.reason is not None and way.reason.is_a(NotAnswering)


def verdict(found: Trace) -> str:
    """The line."""
    asked = found.prediction.question
    port = f"{asked.node}:{asked.port}/{asked.protocol}"
    if found.way < 0:
        return f"{port}: no way is predicted; {found.sent.what}"
    way = found.prediction.ways[found.way]
    if found.agrees and found.arrives:
        took = "" if found.sent.outcome == "live" else f" in {milliseconds(found.sent.took_s)}"
        return f"{port} reached {way.task or way.node} and the answer came back{took}, as predicted"
    if found.agrees is None:
        return f"{port}: {_seen(found)}; what becomes of it was not predicted: it {way.end}"
    if found.agrees:
        return f"{port} fails as predicted: it {way.end}{_because(found, way)}"
    predicted = "only a part of its way: it" if is_untold(way) else "that it"
    return f"{port}: NOT AS PREDICTED: {_happened(found, way)}; predicted was {predicted} {way.end}"


def _seen(found: Trace) -> str:
    """Where nothing was predicted."""
    where = "it was seen nowhere" if found.last is None else f"it was last seen in {at(found.last)}"
    return where if found.sent.outcome == "live" else f"{found.sent.what}, and {where}"


def _because(found: Trace, way: Way) -> str:
    """Why a way fails, where its end does not say so."""
    cause = next((cause for cause in found.prediction.causes if cause.way in (found.way, -1)), None)
    return "" if cause is None or cause.reason == way.reason else f" ({cause.place}: {cause.why})"


def _happened(found: Trace, way: Way) -> str:
    """What was seen instead, in one sentence."""
    parts = []
    if found.arrives and not way.arrives:
        parts.append(f"{found.sent.what}")
    if found.drops:
        parts.append(f"dropped by {found.drops[0]}")
    lost = next((hop.step for hop in found.hops if hop.mark == "missing"), -1)
    if found.last is None:
        parts.append("it was seen nowhere")
    elif found.lost is None and not found.arrives and way.arrives:
        where = f"; a later packet was last seen in {at(found.last)}" if found.last.later else ""
        parts.append(f"it was seen on all of its way, but {found.sent.what}{where}")
    elif found.lost is None and found.strays and not way.arrives:
        parts.append(f"it went on to {at(found.strays[0])}")
    elif found.lost is not None and any(hop.mark == "seen" and hop.step > lost for hop in found.hops):
        parts.append(f"{found.lost.what} did not happen in {found.lost.place}")
    elif found.lost is not None and lost == len(way.there):
        parts.append(f"it got to {found.last.place}, out of which no answer came")
    elif found.lost is not None:
        parts.append(f"last seen in {at(found.last)}, not seen in {at(found.lost)}")
    return ", ".join(parts)


def at(where: Where) -> str:
    """A place with its device and time."""
    when = "" if where.at_s is None else f" after {milliseconds(where.at_s)}"
    return f"{where.place}{f' {where.device}' if where.device else ''}{when}"


def milliseconds(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1000:.3f} ms" if abs(seconds) < 0.1 else f"{seconds:.2f} s"
