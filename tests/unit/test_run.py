"""The script `run` where it can't work: a plain sentence, never more."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "run"
TOOLS = (
    "cat",
    "cmp",
    "date",
    "dirname",
    "flock",
    "grep",
    "head",
    "id",
    "ip",
    "nsenter",
    "python3",
    "readlink",
    "sh",
    "sha256sum",
    "curl",
    "nft",
)
LOCK, DEV_LOCK = "requirements.lock", "requirements-dev.lock"


class Tree:
    """A directory with nothing but `run`, and a PATH with nothing but TOOLS and what a test adds."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tree"
        self.bin = root / "bin"
        self.root.mkdir()
        self.bin.mkdir()
        shutil.copy(SCRIPT, self.root)
        for tool in TOOLS:
            if found := shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin"):
                (self.bin / tool).symlink_to(found)
        self.program("id", "echo 0")

    def program(self, name: str, script: str, where: Path | None = None) -> None:
        """Put a program in place of the real one."""
        path = (where or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def set_up(self, lock: str = LOCK) -> None:
        """Make it look as if it were set up; `routemesh` says with what it is run."""
        programs = self.root / ".venv" / "bin"
        programs.mkdir(parents=True)
        self.program("python", "exit 1", programs)
        self.program("routemesh", 'echo "routemesh: $*"', programs)
        lines = [f"{self.root} {programs / 'python'}"]
        for name in (lock, "pyproject.toml"):
            (self.root / name).write_text(name)
            lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}")
        stamps = self.root / ".venv" / "routemesh-setup"
        stamps.mkdir()
        (stamps / lock).write_text("".join(f"{line}\n" for line in lines))

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and error."""
        command = (str(self.root / "run"), *words)
        done = subprocess.run(command, env={"PATH": str(self.bin)}, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path.resolve())


@pytest.mark.parametrize("words", [(), ("nonsense",)])
def test_a_wrong_command_gets_the_usage_on_stderr(tree: Tree, words: tuple[str, ...]) -> None:
    status, out, err = tree.run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: ./run COMMAND\n")


def test_help_goes_to_stdout(tree: Tree) -> None:
    status, out, err = tree.run("--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: ./run COMMAND\n")


def test_nobody_in_particular_and_no_sudo(tree: Tree) -> None:
    tree.program("id", "echo 1000")
    says = "run: this needs root (network namespaces, Debian packages) and there is no sudo: run it as root\n"
    assert tree.run("demo") == (1, "", says)


def test_sudo_gets_the_same_command(tree: Tree) -> None:
    tree.program("id", "echo 1000")
    tree.program("sudo", 'shift; echo "$*"')
    assert tree.run("demo", "--keep") == (0, f"{tree.root}/run demo --keep\n", "")


def test_a_system_without_apt_is_told_what_is_missing(tree: Tree) -> None:
    (tree.bin / "curl").unlink()
    says = "run: this system has no apt-get (Debian and Ubuntu are supported): install yourself what these packages hold: curl\n"
    assert tree.run("setup") == (1, "", says)


def test_once_set_up_nothing_but_the_command_is_heard(tree: Tree) -> None:
    tree.set_up()
    tree.program("unshare", "exit 0")
    assert tree.run("demo", "--keep") == (0, "routemesh: demo --keep\n", "")
    assert tree.run("setup") == (0, "", "")


def test_a_change_of_the_lock_is_noticed(tree: Tree) -> None:
    tree.set_up()
    (tree.root / LOCK).write_text("changed")
    tree.program("flock", "echo sets up >&2; exit 1")
    assert tree.run("setup") == (1, "", "sets up\n")


def test_a_tool_that_cannot_be_had_stops_no_test_and_is_asked_for_once_a_day(tree: Tree) -> None:
    tree.set_up(DEV_LOCK)
    tree.program("python", 'echo "python: $*"', tree.root / ".venv" / "bin")
    tree.program("unshare", "exit 0")
    tree.program("nproc", "echo 2")
    tree.program("apt-get", 'case "$*" in *"install --no-install-recommends user-mode-linux") exit 100 ;; esac')
    status, out, err = tree.run("test", "-k", "something")
    assert (status, out) == (0, "python: -m pytest --numprocesses=3 --no-loadscope-reorder --cov=routemesh -k something\n")
    complaint = "run: user-mode-linux can't be installed here: the tests that need it will be skipped"
    assert [line for line in err.splitlines() if not line.startswith("run: installing ")] == [
        f"{complaint} ({tree.root}/.setup.log)"
    ]
    assert tree.run("test") == (0, "python: -m pytest --numprocesses=3 --no-loadscope-reorder --cov=routemesh\n", "")


def test_a_kernel_without_nf_tables(tree: Tree) -> None:
    tree.set_up()
    tree.program("unshare", '[ "$2" = true ] || { echo "netlink: Protocol not supported" >&2; exit 1; }')
    status, out, err = tree.run("demo")
    assert (status, out) == (1, "")
    assert err.startswith("run: this kernel has no nf_tables (CONFIG_NF_TABLES), ")
    assert err.endswith("(netlink: Protocol not supported)\n")


def test_a_container_without_privileges(tree: Tree) -> None:
    tree.set_up()
    tree.program("unshare", "exit 1")
    assert tree.run("demo") == (1, "", "run: no network namespace can be made here; in a container, start it with --privileged\n")
