"""Signals as people give them: SIGTERM, TERM, 15, RTMIN+3. The one grammar of them. PURE.

Source: signal(7); docker's --stop-signal (moby/sys/signal) has the same forms.
"""

import re
import signal

from routemesh.errors import UserError

_REALTIME = re.compile(r"RT(MIN\+|MAX-)([0-9]{1,2})")
_NUMBER = re.compile(r"[0-9]{1,3}")


def number(text: str) -> int:
    """The number of a signal, in upper or lower case. Raises UserError for what is none."""
    wanted = text.upper()
    name = wanted.removeprefix("SIG")
    if _NUMBER.fullmatch(wanted):
        found = int(wanted)
    elif match := _REALTIME.fullmatch(name):
        offset = int(match[2])
        found = signal.SIGRTMIN + offset if match[1] == "MIN+" else signal.SIGRTMAX - offset
        found = found if signal.SIGRTMIN <= found <= signal.SIGRTMAX else 0
    else:
        found = int(signal.Signals.__members__.get(f"SIG{name}", 0))
    if found not in signal.valid_signals():
        raise UserError(f"stop signal {text!r} is unknown; use one such as SIGTERM or SIGRTMIN+3, or its number")
    return found


def full_name(text: str) -> str:
    """The one name of a signal: SIGTERM; SIGRTMIN+3, however it was counted. Raises UserError for what is none."""
    found = number(text)
    if signal.SIGRTMIN < found < signal.SIGRTMAX:
        return f"SIGRTMIN+{found - signal.SIGRTMIN}"
    return signal.Signals(found).name
