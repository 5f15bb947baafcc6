"""The flags of `service create` and `service update`, and what each does to a spec: PURE.

A row is a flag and a function (spec, value) -> spec. Rows are carried out in order; those whose flag was not given are
passed over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from routemesh import labels
from routemesh.cli.values import DURATION, ENV, LOG_OPTION, PAIR, PUBLISH, TARGET, WORDS, OneOf
from routemesh.errors import UserError
from routemesh.model import HealthCheck, HealthKind, LogDriver, Mode, Protocol, RestartCondition, ServiceSpec, UpdateOrder
from routemesh.values import replace

Apply = Callable[[ServiceSpec, Any], ServiceSpec]
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Setting:
    """A flag; `key` is the name that click gives its value, `unset` what counts in a new service without it."""

    key: str
    names: tuple[str, ...]
    apply: Apply
    help: str
    unset: str
    how: Mapping[str, Any]

    def given_to(self, command: Command, *, creates: bool) -> Command:
        """Make it an option of a click command."""
        help_ = f"{self.help.removesuffix('.')} (default {self.unset})." if creates and self.unset else self.help
        return click.option(*self.names, self.key, help=help_, **self.how)(command)


def _setting(apply: Apply, *names: str, help: str, unset: str = "", **how: Any) -> Setting:
    key = next(name for name in names if name.startswith("--")).removeprefix("--").replace("-", "_")
    return Setting(key, names, apply, help, unset, how)


def _field(name: str, *flags: str, **how: Any) -> Setting:
    return _setting(lambda spec, value: replace(spec, **{name: value}), *flags, **how)


def _part(part: str, name: str, *flags: str, **how: Any) -> Setting:
    def apply(spec: ServiceSpec, value: Any) -> ServiceSpec:
        return replace(spec, **{part: replace(getattr(spec, part), **{name: value})})

    return _setting(apply, *flags, **how)


def _timing(name: str, *flags: str, **how: Any) -> Setting:
    def apply(spec: ServiceSpec, value: Any) -> ServiceSpec:
        if spec.health is None and not labels.is_probed(spec.labels):
            raise UserError(f"{flags[0]}: there is no health check; add --health-cmd or a label {labels.HEALTH_HTTP}=/path")
        check = spec.health or HealthCheck(kind=HealthKind.TCP)  # of what kind it is, the label says
        return replace(spec, health=replace(check, **{name: value}))

    return _setting(apply, *flags, **how)


def _replicas(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    if spec.mode is Mode.GLOBAL:
        raise UserError("--replicas: a global service has one task on every node; use it with --mode replicated")
    return replace(spec, replicas=replicas)


def _health_command(spec: ServiceSpec, command: str) -> ServiceSpec:
    timings = spec.health or HealthCheck(kind=HealthKind.CMD_SHELL)
    return replace(spec, health=replace(timings, kind=HealthKind.CMD_SHELL, command=(command,)))


def _log_options(spec: ServiceSpec, options: Iterable[tuple[str, int]]) -> ServiceSpec:
    given: dict[str, Any] = dict(options)
    return replace(spec, logs=replace(spec.logs, **given))


def _add_labels(spec: ServiceSpec, pairs: Iterable[tuple[str, str]]) -> ServiceSpec:
    return replace(spec, labels={**spec.labels, **dict(pairs)})


def _add_environment(spec: ServiceSpec, entries: Iterable[str]) -> ServiceSpec:
    merged = {entry.partition("=")[0]: entry for entry in (*spec.environment, *entries)}
    return replace(spec, environment=tuple(merged.values()))


def _remove_environment(spec: ServiceSpec, keys: Iterable[str]) -> ServiceSpec:
    return replace(spec, environment=tuple(entry for entry in spec.environment if entry.partition("=")[0] not in set(keys)))


def _remove_constraints(spec: ServiceSpec, constraints: Iterable[str]) -> ServiceSpec:
    return replace(spec, constraints=tuple(each for each in spec.constraints if each not in set(constraints)))


def _unpublish(spec: ServiceSpec, targets: Iterable[tuple[int, Protocol]]) -> ServiceSpec:
    left = spec.publish
    for target, protocol in targets:
        kept = tuple(port for port in left if (port.target, port.protocol) != (target, protocol))
        if kept == left:
            raise UserError(f"--publish-rm: service {spec.name} publishes no port with target {target}/{protocol}")
        left = kept
    return replace(spec, publish=left)


_MANY: dict[str, Any] = {"multiple": True}

_CREATE = (
    _field("name", "--name", required=True, help="The service's name."),
    _field("mode", "--mode", type=OneOf(Mode), help="replicated (default), or one task on every node."),
    _setting(_add_environment, "--env", "-e", type=ENV, **_MANY, help="Set an environment variable, KEY=VALUE."),
    _setting(_add_labels, "--label", "-l", type=PAIR, **_MANY, help="Set a label of the service, KEY=VALUE."),
    _field("constraints", "--constraint", **_MANY, help="Where tasks may run: node.role==worker, node.labels.disk!=slow."),
    _field("publish", "--publish", "-p", type=PUBLISH, **_MANY, help="Publish a port on every node: 8080:80[/udp]."),
)
_UPDATE = (
    _field("image", "--image", help="The image; `host` runs a program of the node."),
    _field("command", "--args", type=WORDS, help="The command and its arguments, in one string."),
    _setting(_remove_environment, "--env-rm", **_MANY, help="Remove an environment variable."),
    _setting(_add_environment, "--env-add", type=ENV, **_MANY, help="Add or replace an environment variable."),
    _setting(labels.without, "--label-rm", **_MANY, help="Remove a label."),
    _setting(_add_labels, "--label-add", type=PAIR, **_MANY, help="Add or replace a label."),
    _setting(_remove_constraints, "--constraint-rm", **_MANY, help="Remove a constraint."),
    _setting(
        lambda spec, added: replace(spec, constraints=(*spec.constraints, *added)),
        "--constraint-add", **_MANY, help="Add a constraint.",
    ),
    _setting(_unpublish, "--publish-rm", type=TARGET, **_MANY, help="Remove a published port by its target port: 80[/udp]."),
    _setting(
        lambda spec, added: replace(spec, publish=(*spec.publish, *added)),
        "--publish-add", type=PUBLISH, **_MANY, help="Publish one more port.",
    ),
)  # fmt: skip
_BOTH = (
    _setting(_replicas, "--replicas", type=click.IntRange(min=0), help="The number of tasks.", unset="1"),
    _field("workdir", "--workdir", "-w", help="Working directory of the command."),
    _field("stop_signal", "--stop-signal", help="Signal that asks a task to end.", unset="SIGTERM"),
    _field("stop_grace_s", "--stop-grace-period", type=DURATION, help="Time before a task is killed.", unset="10s"),
    _part("logs", "driver", "--log-driver", type=OneOf(LogDriver), help="Who keeps what tasks write.", unset="local"),
    _setting(
        _log_options, "--log-opt", type=LOG_OPTION, **_MANY,
        help="How much is kept: max-size=20m, then another file, of which there are at most max-file=5.",
    ),
    _part(
        "restart",
        "condition",
        "--restart-condition",
        type=OneOf(RestartCondition),
        help="After which exits to restart.",
        unset="any",
    ),
    _part("restart", "delay_s", "--restart-delay", type=DURATION, help="Time before a restart.", unset="5s"),
    _part("restart", "max_attempts", "--restart-max-attempts", type=click.IntRange(min=0), help="How many restarts at most."),
    _part("restart", "window_s", "--restart-window", type=DURATION, help="The time in which the attempts count."),
    _part("update", "order", "--update-order", type=OneOf(UpdateOrder), help="Which task goes first.", unset="stop-first"),
    _part("update", "delay_s", "--update-delay", type=DURATION, help="Time between two tasks of an update."),
    _setting(_health_command, "--health-cmd", help="A shell command that succeeds in a healthy task."),
    _setting(lambda spec, _: replace(spec, health=None), "--no-healthcheck", is_flag=True, help="Check nothing."),
)  # fmt: skip
_TIMINGS = (
    _timing("interval_s", "--health-interval", type=DURATION, help="Time between two checks.", unset="30s"),
    _timing("timeout_s", "--health-timeout", type=DURATION, help="Time that a check may take.", unset="30s"),
    _timing("retries", "--health-retries", type=click.IntRange(min=1), help="Failures in a row that count.", unset="3"),
    _timing("start_period_s", "--health-start-period", type=DURATION, help="Time in which failures do not count."),
)


def create_flags(command: Command) -> Command:
    """Give a click command the flags of `service create`."""
    return _with_options(command, (*_CREATE, *_BOTH, *_TIMINGS), creates=True)


def update_flags(command: Command) -> Command:
    """Give a click command the flags of `service update`."""
    return _with_options(command, (*_UPDATE, *_BOTH, *_TIMINGS), creates=False)


def changed(spec: ServiceSpec, flags: Mapping[str, Any]) -> ServiceSpec:
    """The spec with all given flags carried out. Raises UserError where they contradict the spec or one another."""
    return _applied(spec, flags, (*_CREATE, *_UPDATE, *_BOTH, *_TIMINGS))


def forced(spec: ServiceSpec) -> ServiceSpec:
    """The same spec, whose tasks must be replaced."""
    return replace(spec, force=spec.force + 1)


def _applied(spec: ServiceSpec, flags: Mapping[str, Any], settings: Iterable[Setting]) -> ServiceSpec:
    for setting in settings:
        value = flags.get(setting.key)
        if value is not None and value is not False and value != ():
            spec = setting.apply(spec, value)
    return spec


def _with_options(command: Command, settings: tuple[Setting, ...], *, creates: bool) -> Command:
    for setting in reversed(settings):
        command = setting.given_to(command, creates=creates)
    return command
