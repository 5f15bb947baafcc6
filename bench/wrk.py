"""wrk as the client that asks a web server as fast as it can. Source: wrk's README."""

import re
import subprocess

from routemesh.errors import Unavailable

_RATE = re.compile(r"^Requests/sec: *([\d.]+)$", re.MULTILINE)
_ERRORS = re.compile(r"^ *(Socket errors: .*|Non-2xx.*)$", re.MULTILINE)


def requests_per_s(url: str, connections: int, seconds: int, *words: str) -> float:
    """What one thread gets, asked from where we are; `words` are further ones of its command line.

    Raises Unavailable where there were errors, so that a failure is never taken for speed.
    """
    command = ("wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s", *words, url)
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    rate, errors = _RATE.search(output), _ERRORS.search(output)
    if rate is None or errors is not None:
        raise Unavailable(f"wrk {url}: {errors[1] if errors else output.strip()}")
    return float(rate[1])
