"""The `routemesh` command: `whoami` without anything that is slow to load, everything else through click."""

import sys


def main() -> int:
    """Run the command line; the exit status."""
    if sys.argv[1:2] == ["whoami"]:
        from routemesh import whoami

        return whoami.main(sys.argv[2:])
    from routemesh.cli import main as cli

    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
