"""Whether a service's spec makes sense by itself. PURE."""

import math
import re
from collections import Counter

from routemesh import labels, signals
from routemesh.decide.constraints import parse
from routemesh.errors import UserError
from routemesh.model import HealthCheck, HealthKind, LogConfig, Publish, ServiceSpec
from routemesh.values import replace

MAX_REPLICAS = 10_000
"""Far above what a cluster runs, and low enough that a slip of the keyboard does no harm."""

MAX_RESTART_ATTEMPTS = 100
"""So many ended tasks of a slot would have to be kept to be counted."""

MIN_LOG_BYTES, MAX_LOG_BYTES, MAX_LOG_FILES = 4096, 10**12, 1000
"""Of one file of a task's log, and of their number: a file as small as a page, a log as large as a disk."""

_LAST_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


def checked(spec: ServiceSpec, present: ServiceSpec | None = None) -> ServiceSpec:
    """The spec in its normal form (the signal's full name, what its labels say). Raises UserError.

    What labels say can't be set beside them: `balancing` and `http` are as labels have them, as the `present` spec has them
    (which a client changes and sends back), or as in a spec that says nothing of them.
    """
    if not _NAME.fullmatch(spec.name):
        raise UserError(
            f"service name {spec.name!r} is not a DNS label; use at most 63 letters, digits, - and _, "
            "with a letter or digit first and last"
        )
    try:
        _check_task(spec)
        _check_numbers(spec)
        _check_logs(spec.logs)
        _check_publish(spec.publish)
        for constraint in spec.constraints:
            parse(constraint)
        normal = labels.interpret(replace(spec, stop_signal=signals.full_name(spec.stop_signal)), present)
        _check_health(normal.health)
    except UserError as exc:
        raise UserError(f"service {spec.name}: {exc}") from None
    return normal


def _check_task(spec: ServiceSpec) -> None:
    if not spec.image:
        raise UserError("it has no image; 'host' runs a program of the node")
    if not spec.workdir.startswith("/"):
        raise UserError(f"working directory {spec.workdir!r} is not an absolute path; start it with /")
    for entry in spec.environment:
        if not entry.partition("=")[0] or "=" not in entry:
            raise UserError(f"environment entry {entry!r} is not KEY=VALUE")
    if any("\0" in text for text in (*spec.command, *spec.environment, spec.workdir)):
        raise UserError("command, environment and working directory can't contain a NUL character")


def _check_numbers(spec: ServiceSpec) -> None:
    _check_count("replicas", spec.replicas)
    if spec.replicas > MAX_REPLICAS:
        raise UserError(f"{spec.replicas} replicas are over {MAX_REPLICAS}, the most that a service can have; use fewer")
    _check_count("restart max-attempts", spec.restart.max_attempts)
    if spec.restart.max_attempts > MAX_RESTART_ATTEMPTS:
        raise UserError(f"restart max-attempts {spec.restart.max_attempts} is over {MAX_RESTART_ATTEMPTS}; 0 means no limit")
    _check_time("restart delay", spec.restart.delay_s)
    _check_time("restart window", spec.restart.window_s)
    _check_time("update delay", spec.update.delay_s)
    _check_time("stop grace period", spec.stop_grace_s)


def _check_count(what: str, value: int) -> None:
    if type(value) is not int or value < 0:
        raise UserError(f"{what} is {value!r}; give a whole number, 0 or more")


def _check_time(what: str, value_s: float) -> None:
    if not (math.isfinite(value_s) and value_s >= 0):
        raise UserError(f"{what} is {value_s} s; give a time of 0 or more")


def _check_logs(logs: LogConfig) -> None:
    _check_count("log option max-size", logs.max_bytes)
    _check_count("log option max-file", logs.max_files)
    if not MIN_LOG_BYTES <= logs.max_bytes <= MAX_LOG_BYTES:
        raise UserError(f"log option max-size is {logs.max_bytes} bytes; use {MIN_LOG_BYTES} to {MAX_LOG_BYTES}")
    if not 1 <= logs.max_files <= MAX_LOG_FILES:
        raise UserError(f"log option max-file is {logs.max_files}; use 1 to {MAX_LOG_FILES}")


def _check_publish(publish: tuple[Publish, ...]) -> None:
    for port in publish:
        _check_port("published port", port.published)
        _check_port("target port", port.target)
    for (published, protocol), times in Counter((port.published, port.protocol) for port in publish).items():
        if times > 1:
            raise UserError(f"port {published}/{protocol} is published twice; give each port and protocol once")


def _check_port(what: str, port: int) -> None:
    if type(port) is not int or not 1 <= port <= _LAST_PORT:
        raise UserError(f"{what} {port} is out of range; use 1-{_LAST_PORT}")


def _check_health(check: HealthCheck | None) -> None:
    if check is None:
        return
    if check.kind in (HealthKind.CMD, HealthKind.CMD_SHELL):
        if not any(check.command):
            raise UserError("the health check has no command; give one, or remove the check")
    else:
        _check_port("health check's port", check.port)
    if check.kind is HealthKind.HTTP and not check.path.startswith("/"):
        raise UserError(f"health check's path {check.path!r} does not start with /")
    for what, value_s in (("interval", check.interval_s), ("timeout", check.timeout_s)):
        if not (math.isfinite(value_s) and value_s > 0):
            raise UserError(f"health check's {what} is {value_s} s; give a time of more than 0")
    _check_time("health check's start period", check.start_period_s)
    if type(check.retries) is not int or check.retries < 1:
        raise UserError(f"health check's retries is {check.retries!r}; give a whole number, 1 or more")
