"""`routemesh lab` on a disk that takes nothing."""

import errno
import os

import click
import pytest

from routemesh.cli.lab import RootCommand
from routemesh.errors import UserError


def test_a_disk_that_takes_nothing_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/disk/daemon.log")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match=r"^start: /disk/daemon.log: Read-only file system; mend that"):
        RootCommand("start", callback=refused).main([], prog_name="start", standalone_mode=False)
    with pytest.raises(click.ClickException):
        RootCommand("start").main(["--nonsense"], prog_name="start", standalone_mode=False)
