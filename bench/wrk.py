"""wrk as the client that asks a web server as fast as it can. Source: wrk's README."""

import re
import subprocess
from typing import NamedTuple

from routemesh.errors import Unavailable

_RATE = re.compile(r"^Requests/sec: *([\d.]+)$", re.MULTILINE)
_ERRORS = re.compile(r"^ *(Socket errors: .*|Non-2xx.*)$", re.MULTILINE)
_LATENCY = re.compile(r"^ +(50|99)% +([\d.]+)(us|ms|s)$", re.MULTILINE)
_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Answered(NamedTuple):
    """What one thread of wrk saw."""

    per_s: float
    p50_ms: float
    p99_ms: float


def ask(url: str, connections: int, seconds: int, *words: str) -> Answered:
    """Ask from where we are; `words` are further ones of wrk's command line.

    Raises Unavailable where there were errors, so that a failure is never taken for speed.
    """
    command = ("wrk", "--latency", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", *words, url)
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    rate, errors = _RATE.search(output), _ERRORS.search(output)
    latency = {share: float(number) * _UNIT_MS[unit] for share, number, unit in _LATENCY.findall(output)}
    if rate is None or errors is not None or len(latency) != 2:
        raise Unavailable(f"wrk {url}: {errors[1] if errors else output.strip()}")
    return Answered(float(rate[1]), latency["50"], latency["99"])


def requests_per_s(url: str, connections: int, seconds: int, *words: str) -> float:
    """How many requests one thread gets answered."""
    return ask(url, connections, seconds, *words).per_s
