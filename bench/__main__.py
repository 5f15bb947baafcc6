"""Runs benchmarks by name, all without one: conditions once, then a table per question.

A benchmark is a module with `measure(runs)`, which yields a Measurement as soon as it has it, and RUNS, the default of `runs`.
Its docstring begins with "Question: …?" and states setup and budget. A missed budget is reported, not an error.
"""

import argparse
import sys
from importlib import import_module
from types import ModuleType

from bench.machine import conditions
from bench.measurement import HEADINGS, markdown_row, text_row
from routemesh.errors import RoutemeshError

NAMES = (
    "plan_and_diff",
    "apply_one",
    "iptables",
    "lifecycle",
    "rest",
    "crowd",
    "explain",
    "trace",
    "doctor",
    "throughput",
    "ipvs",
    "balancing",
    "gateway",
)


def main() -> int:
    """Measure and print; the exit status says whether everything could be measured."""
    parser = _parser()
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {unknown.pop()}; choose from {', '.join(NAMES)}")
    modules = [import_module(f"bench.{name}") for name in options.names or NAMES]
    if options.list:
        for module in modules:
            print(f"{_name(module):15} {_question(module)}")
        return 0
    for condition, value in conditions().items():
        print(f"- {condition}: {value}" if options.markdown else f"{condition:12} {value}")
    failed = [module for module in modules if not _run(module, options.runs or module.RUNS, markdown=options.markdown)]
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure what routemesh costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--list", action="store_true", help="print the questions and measure nothing")
    parser.add_argument("--runs", type=int, help="how often each thing is measured")
    parser.add_argument("--markdown", action="store_true", help="print what docs/benchmarks.md keeps")
    return parser


def _run(module: ModuleType, runs: int, *, markdown: bool) -> bool:
    row = markdown_row if markdown else text_row
    print(f"\n## {_name(module)}\n\n{_question(module)}\n" if markdown else f"\n{_name(module)}: {_question(module)}")
    print(row(HEADINGS))
    if markdown:
        print(row(["---"] * len(HEADINGS)))
    try:
        for measurement in module.measure(runs):
            print(row(measurement.cells()), flush=True)
    except RoutemeshError as exc:
        print(f"bench: {_name(module)} can't be measured: {exc}", file=sys.stderr)
        return False
    return True


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _question(module: ModuleType) -> str:
    assert module.__doc__ is not None
    return module.__doc__.partition("\n")[0].removeprefix("Question: ")


if __name__ == "__main__":
    sys.exit(main())
