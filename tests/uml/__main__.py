"""`./run uml [COMMAND]`: the command, or a shell, in User-Mode Linux on this machine's files; its exit status."""

import sys

from tests.support import lacking
from tests.uml.machine import Machine


def main() -> int:
    """Run it; 1 where the machine can't be had or its kernel has failed."""
    if missing := lacking("root", "uml"):
        print(f"run: this needs {missing}", file=sys.stderr)
        return 1
    with Machine(sys.argv[1:] or ["bash"], on_stdio=True) as machine:
        try:
            status = machine.wait(None)
        except KeyboardInterrupt:  # before the console is the machine's, or without one
            return 130
    if status is None:
        print("run: User-Mode Linux has ended before the command", file=sys.stderr)
        return 1
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
