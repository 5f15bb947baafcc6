import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.errors import UserError
from routemesh.model import ServiceSpec
from routemesh.runtime.process import hostcommand
from routemesh.values import replace

SPEC = ServiceSpec(name="web", command=("sleep", "1"))


def test_a_plain_spec_is_accepted() -> None:
    hostcommand.check(SPEC)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "image",
            "nginx:latest",
            "image 'nginx:latest' needs the docker driver; this node runs the process driver, and its only image is 'host'",
        ),
        ("command", (), "service web: image 'host' has no default command; say what to run"),
        ("command", ("",), "service web: image 'host' has no default command; say what to run"),
        ("command", ("echo", "a\0b"), "service web: 'a\\x00b' holds a character that can't be passed to a program"),
        ("environment", ("A=\ud800",), "service web: 'A=\\ud800' holds a character that can't be passed to a program"),
        ("workdir", "srv", "service web: working directory 'srv' is not an absolute path"),
        (
            "environment",
            ("GREETING",),
            "service web: environment entry 'GREETING' is not NAME=VALUE with a NAME of letters, digits and _",
        ),
        (
            "environment",
            ("my.name=1",),
            "service web: environment entry 'my.name=1' is not NAME=VALUE with a NAME of letters, digits and _",
        ),
        (
            "stop_signal",
            "SIGNONE",
            "stop signal 'SIGNONE' is unknown; use one such as SIGTERM or SIGRTMIN+3, or its number",
        ),
    ],
)
def test_what_can_not_be_carried_out_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        hostcommand.check(replace(SPEC, **{field: value}))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_the_environment_is_ours_and_the_specs_where_they_differ() -> None:
    spec = replace(SPEC, environment=("A=b=c", "HOSTNAME=mine"))
    assert hostcommand.environment(spec, "web.1", "c0ffee", Path("/run/routemesh")) == {
        "PATH": hostcommand.TASK_PATH,
        "HOSTNAME": "mine",
        "ROUTEMESH_TASK": "web.1",
        "ROUTEMESH_SERVICE": "web",
        "ROUTEMESH_RUN_DIR": "/run/routemesh",
        "A": "b=c",
    }


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_the_shell_reads_what_was_written(value: str) -> None:
    script = hostcommand.export_lines({"VALUE": value}) + b'printf %s "$VALUE"'
    done = subprocess.run(["/bin/sh"], input=script, env={}, capture_output=True)
    assert (done.stdout, done.stderr) == (value.encode(), b"")
