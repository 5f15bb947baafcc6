"""Making a recording: the commands are run in every namespace of a node, their outputs written as they are. Nothing is changed.

A command that is not installed or fails is told; its file is then missing, which readers know from an empty one. No module is
loaded into the kernel: where IPVS or nf_tables is not in use, there is nothing of it to record.

Source: ip(8), bridge(8), ss(8), conntrack(8), ipvsadm(8), iptables-save(8), nft(8), setns(2).
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from routemesh.errors import UserError
from routemesh.kernel import netns, sysctl
from routemesh.kernel.capabilities import has_nf_tables
from routemesh.kernel.netlink import ipvs
from routemesh.legible import storable
from routemesh.nodeplan import HOST
from routemesh.recording.namespace import HOST_DIRECTORY, LEGACY, NUMBERS, XTABLES
from routemesh.recording.node import ABOUT, NETNS_DIRECTORY, PROCESSES, VERSION, About
from routemesh.sight.observe import numbers
from routemesh.snapshot import LINK_SYSCTLS, SYSCTLS

_TIMEOUT_S = 30.0
_ALWAYS: Mapping[str, tuple[str, ...]] = {
    "ip-addr.json": ("ip", "-details", "-json", "address", "show"),
    "ip-addr.txt": ("ip", "-details", "address", "show"),
    "ip-route.txt": ("ip", "-4", "route", "show", "table", "all"),
    "ip-rule.txt": ("ip", "-4", "rule", "show"),
    "ip-neigh.txt": ("ip", "-4", "neighbour", "show", "nud", "all"),
    "bridge-fdb.txt": ("bridge", "fdb", "show"),
    "ss-listen.txt": ("ss", "-Hlntup"),
    "conntrack.txt": ("conntrack", "-L", "-f", "ipv4"),
}
_NFTABLES: Mapping[str, tuple[str, ...]] = {
    "nft-ruleset.txt": ("nft", "--stateless", "list", "ruleset"),
    "nft-ruleset.json": ("nft", "--stateless", "--numeric-protocol", "--json", "list", "ruleset"),
}
_IPVS: Mapping[str, tuple[str, ...]] = {
    "ipvsadm-Ln.txt": ("ipvsadm", "-Ln"),
    "ipvsadm-timeouts.txt": ("ipvsadm", "-L", "--timeout"),
}
_PACKAGES = {"ip": "iproute2", "bridge": "iproute2", "ss": "iproute2", "nft": "nftables"}
_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_IPVS_SYSCTLS = Path("/proc/sys/net/ipv4/vs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to record: whose it is, the files of its namespaces by name (HOST its own), and files that are written besides."""

    about: About
    namespaces: Mapping[str, Path]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What was written, and what was not, each with its reason."""

    files: int = 0
    missing: dict[str, list[str]] = field(default_factory=dict)

    def lacks(self, reason: str, file: str) -> None:
        """Take down that a file could not be written."""
        self.missing.setdefault(reason, []).append(file)


def record(directory: Path, target: Target) -> Report:
    """Write everything below `directory`, which is made. Raises UserError where it can't be, or holds something already."""
    if os.geteuid() != 0:
        raise UserError("a recording needs root: it enters network namespaces")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UserError(f"{directory} is not empty; name a new directory for the recording")
    except OSError as error:
        raise UserError(f"{directory} can't be made: {error.strerror}") from error
    report = Report()
    about = {**asdict(target.about), "address": str(target.about.address or ""), "version": VERSION}
    for name, text in {ABOUT: json.dumps(about, indent=1) + "\n", **target.files}.items():
        _write(directory / name, text, report)
    with ExitStack() as opened:
        spaces = dict(_opened(opened, target, report))
        for name, path in spaces.items():
            place = _place(name)
            with netns.entered(path):
                for file, text in ((NUMBERS, _numbers(spaces)), *_outputs(place, report)):
                    _write(directory / place / file, text, report)
    _write(directory / PROCESSES, "".join(_processes()), report)
    return report


def _opened(opened: ExitStack, target: Target, report: Report) -> Iterator[tuple[str, Path]]:
    """The namespaces by files that stay what they are: a process's own one is another as soon as its thread enters another."""
    for name, path in target.namespaces.items():
        try:
            file = opened.enter_context(netns.opened(path))
            with netns.entered(path):
                pass
        except OSError as error:
            report.lacks(f"{path} can't be entered: {error.strerror}", str(_place(name)))
        else:
            yield name, Path(f"/proc/{os.getpid()}/fd/{file}")


def _place(name: str) -> Path:
    return Path(HOST_DIRECTORY) if name == HOST else Path(NETNS_DIRECTORY, name)


def _write(path: Path, text: str, report: Report) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(storable(text))
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    report.files += 1


def _numbers(spaces: Mapping[str, Path]) -> str:
    """As `ip netns list-id` prints it, which knows only namespaces that `ip netns` made."""
    found = sorted(numbers(spaces).items())
    return "".join(f"nsid {number} (iproute2 netns name: {name or HOST_DIRECTORY})\n" for number, name in found)


def _processes() -> Iterator[str]:
    """As `ps -eo pid,ppid,stat,comm` prints them: whether a server is stopped decides about answers. Arguments may be secret."""
    for number in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        with suppress(OSError):  # it has ended meanwhile
            name, _, rest = Path(f"/proc/{number}/stat").read_bytes().partition(b"(")[2].rpartition(b")")
            state, parent = rest.split()[:2]
            yield f"{number} {int(parent)} {state.decode()} {' '.join(name.decode(errors='replace').split())}\n"


# --- one namespace, which the calling thread is in ---------------------------------------------------------------


def _outputs(place: Path, report: Report) -> Iterator[tuple[str, str]]:
    unused = [*([] if has_nf_tables() else _NFTABLES), *([] if ipvs.is_loaded() else _IPVS)]
    yield from ((file, "") for file in unused)
    commands = {file: argv for file, argv in {**_ALWAYS, **_NFTABLES, **_IPVS}.items() if file not in unused}
    for file, argv in commands.items():
        output, reason = _run(argv)
        if reason:
            report.lacks(reason, str(place / file))
        else:
            yield file, output
    yield from _iptables(place, report)
    yield "sysctl.txt", "".join(_settings())


def _iptables(place: Path, report: Report) -> Iterator[tuple[str, str]]:
    """Both variants may have rules, and packets meet both; where the older has none, its program need not be there."""
    newer, why_not = _run(("iptables-nft-save", "-c"))
    older, why_not_older = _run(("iptables-legacy-save", "-c"))
    if not why_not:
        yield XTABLES, newer
        if not why_not_older or not _has_legacy_tables():
            yield LEGACY, older
        else:
            report.lacks(why_not_older, str(place / LEGACY))
    elif not why_not_older:
        yield XTABLES, older
        yield LEGACY, ""
    else:
        report.lacks(why_not, str(place / XTABLES))


def _has_legacy_tables() -> bool:
    """Source: the kernel's net/netfilter/x_tables.c (xt_proto_init)."""
    try:
        return bool(_LEGACY_TABLES.read_bytes().strip())
    except OSError:
        return False


def _run(argv: Sequence[str]) -> tuple[str, str]:
    """A command's output, or why there is none."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        package = _PACKAGES.get(argv[0], "iptables" if argv[0].startswith("iptables") else argv[0])
        return "", f"{argv[0]} is not installed (Debian package {package})"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{' '.join(argv)}: {error}"
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return "", f"{' '.join(argv)}: {said[0] if said else f'exit status {done.returncode}'}"
    return done.stdout.decode(errors="replace"), ""


def _settings() -> Iterator[str]:
    devices = sorted(os.listdir("/proc/sys/net/ipv4/conf"))
    paths = [*SYSCTLS, *(f"net/ipv4/conf/{device}/{name}" for device in devices for name in LINK_SYSCTLS)]
    if _IPVS_SYSCTLS.exists():
        paths += [f"net/ipv4/vs/{name}" for name in sorted(os.listdir(_IPVS_SYSCTLS))]
    for path in dict.fromkeys(paths):
        value = sysctl.read(path)
        if value is not None:
            yield f"{path.translate({ord('/'): '.', ord('.'): '/'})} = {value}\n"
