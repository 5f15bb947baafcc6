"""The commands of iptables: which of its two variants works here, and running them in the calling thread's namespace.

A process costs 2 to 15 ms, so there is one for a whole namespace, never one for a rule. Legacy programs take turns by the lock
/run/xtables.lock, for which ours wait some seconds.

Source: iptables-save(8), iptables-restore(8), xtables-nft(8); iptables/xshared.c (xtables_lock), proc(5).
"""

import os
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel import netns
from routemesh.language.xtables import transaction
from routemesh.nodeplan import HOST, Assign, Create, Dnat, Match, Verdict, XtChain, XtRule
from routemesh.programs import which

Variant = Literal["nft", "legacy"]
VARIANTS: tuple[Variant, ...] = ("nft", "legacy")

_WAIT_FOR_LOCK_S = 5
_LONGEST_S = 60
_REMEMBERED_PIDS = 1024

_PROGRAM = re.compile(r"^\S+(?: v\S+ \(\w+\))?: ?", re.MULTILINE)
_LINE = re.compile(r"^line \d+(?::| failed:?) ?", re.MULTILINE)
_NOISE = ("Error occurred at line", "Try `")
_LOCK = "xtables lock"

_TCP = Match("meta l4proto", "tcp")
_SAMPLE = (
    XtChain("nat", names.INGRESS_CHAIN, ((_TCP, Match("th dport", "1"), Dnat(IPv4Address("172.18.0.2"), 1)),)),
    XtRule("nat", "PREROUTING", (Match("fib daddr type", "local"), Verdict("jump", names.INGRESS_CHAIN))),
    XtRule("mangle", "PREROUTING", (Match("ct state", "new"), Assign("meta mark", 1))),
    XtRule("filter", "FORWARD", (Verdict("accept"),)),
)
"""Something of all that our rules are made of, but for IPVS."""


class Tools:
    """iptables as it is installed."""

    def __init__(self) -> None:
        self._works: Variant | None = None
        self._pids: deque[int] = deque(maxlen=_REMEMBERED_PIDS)

    def variant(self) -> Variant | None:
        """The variant that works here, found out once; None as long as there is none."""
        return self._works or self.probe()

    def probe(self) -> Variant | None:
        """Try it in a namespace that is thrown away: the variant that `iptables` is, then the other. None: neither works.

        As with any use of iptables, the kernel may load modules for it.
        """
        self._works = None
        with suppress(OSError), netns.thrown_away():
            self._works = next((variant for variant in _by_preference() if self._takes_rules(variant)), None)
        return self._works

    def _takes_rules(self, variant: Variant) -> bool:
        with suppress(KernelError):
            return self.restore(variant, transaction(Create(HOST, item) for item in _SAMPLE)) is None
        return False

    def save(self, variant: Variant) -> str:
        """What iptables-save prints of the tables that exist. Raises KernelError."""
        program = _program(variant, "save")
        code, output, error = self._run([program, "-c"], "")
        if code != 0:
            raise KernelError(program, _reason(error))
        return output

    def restore(self, variant: Variant, text: str) -> str | None:
        """Carry out the commands in `text`, each table all or nothing; why it was refused, or None.

        Raises KernelError where that has nothing to do with `text`: no such program, a lock that others hold.
        """
        program = _program(variant, "restore")
        code, _, error = self._run([program, "-w", str(_WAIT_FOR_LOCK_S), "--noflush"], text)
        if code != 0 and _LOCK in error:
            raise KernelError(program, f"another program holds the lock of iptables, after {_WAIT_FOR_LOCK_S} s of waiting")
        return None if code == 0 else _reason(error)

    def is_ours(self, pid: int) -> bool:
        """Whether a process of that id was started here."""
        return pid in self._pids

    def _run(self, command: Sequence[str], stdin: str) -> tuple[int, str, str]:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as exc:
            raise KernelError(command[0], f"{exc.strerror}; install Debian's iptables", exc.errno or 0) from exc
        self._pids.append(process.pid)
        with process:
            try:
                output, error = process.communicate(stdin, timeout=_LONGEST_S)
            except subprocess.TimeoutExpired as exc:
                process.kill()
                raise KernelError(command[0], f"it did not end within {_LONGEST_S} s") from exc
        return process.returncode, output, error


def _by_preference() -> Sequence[Variant]:
    """The variant that `iptables` is by its name, after all links, comes first."""
    found = which("iptables")
    first: Variant = "legacy" if found is not None and "legacy" in Path(found).resolve().name else "nft"
    return sorted(VARIANTS, key=lambda variant: variant != first)


def _program(variant: Variant, action: Literal["save", "restore"]) -> str:
    name = f"iptables-{variant}-{action}"
    return which(name) or name


def _reason(error: str) -> str:
    """What a program said, on one line, without its name and without advice."""
    text = _LINE.sub("", _PROGRAM.sub("", error))
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(_NOISE)) or "no reason was given; dmesg may have one"
