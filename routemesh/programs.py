"""Where a node's programs are: one PATH for all who look for one."""

import shutil

USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Debian's of root: programs for root are found, too, by a daemon that was started with the PATH of somebody else."""


def which(program: str) -> str | None:
    """The path of a program: by this process's PATH, else by USUAL_PATH; None where it is in neither."""
    return shutil.which(program) or shutil.which(program, path=USUAL_PATH)
