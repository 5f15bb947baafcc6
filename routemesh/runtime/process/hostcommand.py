"""What the process driver accepts of a service's spec, and what it makes of it."""

import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Mapping
from errno import ENOENT
from pathlib import Path

from routemesh import signals
from routemesh.errors import UserError
from routemesh.model import ServiceSpec
from routemesh.programs import USUAL_PATH

IMAGE = "host"
TASK_PATH = f"{USUAL_PATH}:{Path(sys.executable).parent}"
"""Last, so that it hides no program of the node's, the directory that `routemesh` itself is in."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def check(spec: ServiceSpec) -> None:
    """Raise UserError when the spec can't be carried out here, whatever the node has installed."""
    if spec.image != IMAGE:
        raise UserError(
            f"image {spec.image!r} needs the docker driver; this node runs the process driver, and its only image is {IMAGE!r}"
        )
    if not spec.command or not spec.command[0]:
        raise UserError(f"service {spec.name}: image {IMAGE!r} has no default command; say what to run")
    if not spec.workdir.startswith("/"):
        raise UserError(f"service {spec.name}: working directory {spec.workdir!r} is not an absolute path")
    probe = spec.health.command if spec.health is not None else ()
    for text in (*spec.command, *spec.environment, spec.workdir, *probe):
        if not _is_passable(text):
            raise UserError(f"service {spec.name}: {text!r} holds a character that can't be passed to a program")
    for entry in spec.environment:
        if not _VARIABLE.fullmatch(entry):
            raise UserError(
                f"service {spec.name}: environment entry {entry!r} is not NAME=VALUE with a NAME of letters, digits and _"
            )
    signals.number(spec.stop_signal)


def _is_passable(text: str) -> bool:
    """NUL ends a string in C; half a surrogate pair has no bytes (JSON can hold both)."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def environment(spec: ServiceSpec, task_name: str, hostname: str, run_dir: Path) -> dict[str, str]:
    """The whole environment of a task; what the spec says wins over what routemesh sets."""
    ours = {
        "PATH": TASK_PATH,
        "HOSTNAME": hostname,
        "ROUTEMESH_TASK": task_name,
        "ROUTEMESH_SERVICE": spec.name,
        "ROUTEMESH_RUN_DIR": str(run_dir),
    }
    return ours | dict(entry.split("=", 1) for entry in spec.environment)


def export_lines(variables: Mapping[str, str]) -> bytes:
    """The variables as a file that a POSIX shell can source."""
    return os.fsencode("".join(f"export {shlex.quote(f'{name}={value}')}\n" for name, value in variables.items()))


def check_on_node(spec: ServiceSpec, path: str) -> None:
    """Raise UserError when the node has no such working directory or program; `path` is the task's PATH."""
    if not os.path.isdir(spec.workdir):
        raise UserError(f"working directory {spec.workdir!r} does not exist on this node; create it")
    program = spec.command[0]
    if "/" in program:
        _check_program(Path(spec.workdir, program))
    elif not any(_is_program(candidate) for candidate in _candidates(program, path, spec.workdir)):
        raise UserError(f"no program {program!r} in PATH {path}; install it on this node or give its full path")


def finds(program: str) -> bool:
    """Whether a task that says nothing of PATH has a program."""
    return any(_is_program(candidate) for candidate in _candidates(program, TASK_PATH, "/"))


def _candidates(program: str, path: str, workdir: str) -> Iterable[Path]:
    return (Path(workdir, entry, program) for entry in path.split(os.pathsep))


def _is_program(path: Path) -> bool:
    """What can't even be looked for (a name longer than any file's) is not there."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _check_program(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        if exc.errno == ENOENT:
            raise UserError(f"program '{path}' does not exist on this node; install it") from None
        raise UserError(f"program '{path}' can't be executed: {exc.strerror}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"'{path}' is not a program but a directory or device; name a file")
    if not os.access(path, os.X_OK):
        raise UserError(f"'{path}' is not executable; chmod +x it")
