"""Requests and answers of every kind through both proxies and without one: each difference is in docs/gateway.md."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from routemesh.model import GatewayDriver, Http
from tests.gateway.cases import HOST, TIMEOUT_S, Case, cases
from tests.gateway.exchange import outcome, told
from tests.gateway.origin import Origin
from tests.gateway.proxies import running, table
from tests.support import require

PAGE = Path(__file__).parents[2] / "docs/gateway.md"
ROW = re.compile(r"^\| (?P<cases>.+) \| (?P<haproxy>.+) \| (?P<nginx>.+) \|$", re.MULTILINE)
HEAD = "| a request, or an answer | haproxy | nginx |\n|---|---|---|"
AS_DIRECTLY = "as directly"
AT_ONCE = 8

Words = dict[str, tuple[str, str]]
"""By a case's name, what HAProxy and nginx do otherwise."""


@pytest.fixture(scope="module")
def seen() -> Iterator[Words]:
    """Every case, sent three ways."""
    require("haproxy", "nginx", "root")
    every = cases()
    with ExitStack() as stack:
        origin = Origin({str(number): case.answer for number, case in enumerate(every)})
        stack.callback(origin.close)
        routes = table({"a": (Http(hosts=(HOST,), port=origin.port, timeout_s=TIMEOUT_S), [origin.port])})
        ports = [origin.port, *(stack.enter_context(running(driver, routes)) for driver in GatewayDriver)]

        def three_ways(numbered: tuple[int, Case]) -> tuple[str, str]:
            number, case = numbered
            direct, haproxy, nginx = (outcome(case, str(number), port, origin) for port in ports)
            return told(case, haproxy, direct), told(case, nginx, direct)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            words = pool.map(three_ways, enumerate(every))
            yield {case.name: found for case, found in zip(every, words, strict=True)}


def test_what_proxies_do_otherwise_is_what_the_page_says(seen: Words) -> None:
    page = PAGE.read_text().partition(f"{HEAD}\n")[2].partition("\n\n")[0]
    said = {case: (row["haproxy"], row["nginx"]) for row in ROW.finditer(page) for case in row["cases"].split("; ")}
    found = {case: (haproxy or AS_DIRECTLY, nginx or AS_DIRECTLY) for case, (haproxy, nginx) in seen.items() if haproxy or nginx}
    assert len(seen) >= 150
    wrong = {case: (found.get(case), said.get(case)) for case in found.keys() | said.keys() if found.get(case) != said.get(case)}
    assert not wrong, f"seen and said: {wrong}; the page should say\n{rows(found)}"


def rows(found: Words) -> str:
    """The table of the page: what is treated alike is in one row."""
    alike: dict[tuple[str, str], list[str]] = {}
    for case, words in found.items():
        alike.setdefault(words, []).append(case)
    return "\n".join(f"| {'; '.join(names)} | {haproxy} | {nginx} |" for (haproxy, nginx), names in alike.items())
