"""Pictures of explanations and of a cluster: an SVG that stands alone, an HTML page, a flowchart; all of recorded states."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.ground import ground
from routemesh.explain.nouns import Explanation, Ground, Machine, Site, Step, Way
from routemesh.explain.picture import charted, drawn, html, mermaid, of_ground, scene, svg, terrain
from routemesh.explain.picture.layout import LEGS, Drawing, layout
from routemesh.explain.picture.lines import lines
from routemesh.explain.picture.measure import width, wrapped
from routemesh.explain.picture.scene import CLIENT, Scene
from routemesh.recording.read import read
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace

DATA = Path(__file__).parent.parent / "data" / "swarm"
SVG = "{http://www.w3.org/2000/svg}"
FAULTS = (
    "01-dnat-deleted",
    "08-ipvs-dest-deleted",
    "12-fdb-deleted",
    "16-vxlan-port-dropped-input-node2",
    "21-task-redirect-deleted",
)
STATES = ("2-service", *(f"faults/{fault}" for fault in FAULTS))
SIZES = {"title": 17, "verdict": 13, "mono": 10.5, "plug": 10.5, "by": 10, "note": 10.5, "head": 12, "number": 9}


@cache
def recorded(state: str) -> ClusterSnapshot:
    return read([DATA / state])


@cache
def explained(state: str, client: str = "", what: str = "swarm1:8080") -> Explanation:
    return explain(recorded(state), ask(recorded(state), target(what), client, None))


@cache
def eight() -> Explanation:
    """The recorded service with a task on each of eight nodes but the last: what swarm2 has is what all others have."""
    found = explained("2-service")
    near, far = sorted(found.ways, key=lambda way: way.node)

    def elsewhere(text: str, number: int) -> str:
        return text.replace("swarm2", f"node{number}").replace("web.2", f"web.{number}")

    def moved(number: int) -> Way:
        there, back = (
            tuple(
                replace(
                    step,
                    node=elsewhere(step.node, number),
                    place=elsewhere(step.place, number),
                    task=elsewhere(step.task, number),
                )
                for step in steps
            )
            for steps in (far.there, far.back)
        )
        return replace(far, there=there, back=back, task=f"web.{number}", node=f"node{number}")

    sites = [site for site in found.ground.sites if site.node == "swarm2"]
    others = range(2, 9)
    lie = tuple(
        replace(site, node=f"node{number}", title=elsewhere(site.title, number))
        for number in others
        for site in sites
        if number < 8 or site.kind != "task"
    )
    own = tuple(site for site in found.ground.sites if site.node == "swarm1")
    machines = (found.ground.machines[0], *(Machine(name=f"node{n}", address=f"192.168.77.{n}", device="eth0") for n in others))
    ways = (near, *(moved(number) for number in range(2, 8)))
    return replace(found, ways=ways, ground=replace(found.ground, machines=machines, sites=(*own, *lie)))


EXPLANATIONS: dict[str, Callable[[], Explanation]] = {
    **{state: lambda state=state: explained(state) for state in STATES},  # type: ignore[misc]
    "from the node itself": lambda: explained("2-service", "127.0.0.1"),
    "from another node": lambda: explained("2-service", "swarm2"),
    "from a task": lambda: explained("2-service", "web.2"),
    "one node of two": lambda: explain(
        (alone := read([DATA / "2-service" / "node1"])), ask(alone, target("swarm1:8080"), "", None)
    ),
    "eight nodes": eight,
}
SCENES: dict[str, Callable[[], Scene]] = {
    **{name: lambda make=make: scene(make()) for name, make in EXPLANATIONS.items()},  # type: ignore[misc]
    "a cluster": lambda: terrain(ground(recorded("2-service"))),
    "a cluster with another network": lambda: terrain(ground(recorded("5-overlay"))),
}


@pytest.fixture(params=EXPLANATIONS)
def explanation(request: pytest.FixtureRequest) -> Explanation:
    return EXPLANATIONS[request.param]()


@pytest.fixture(params=SCENES)
def what(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]()


# --- the picture --------------------------------------------------------------------------------------------------


def test_it_is_well_formed_and_stands_alone(what: Scene) -> None:
    text = drawn(what)
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    for forbidden in ("<script", "src=", "@import", "http://", "https://", "href"):
        assert forbidden not in text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http://www.w3.org", "")
    assert "prefers-color-scheme: dark" in text
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text == what.title
    assert desc is not None and desc.text == what.verdict


def test_nothing_lies_over_anything_else_nor_outside(what: Scene) -> None:
    drawing = layout(what)
    for one, other in combinations(drawing.boxes.values(), 2):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    for one_frame, other_frame in combinations(drawing.frames.values(), 2):
        apart = one_frame.x + one_frame.width <= other_frame.x or other_frame.x + other_frame.width <= one_frame.x
        assert apart or one_frame.y + one_frame.height <= other_frame.y or other_frame.y + other_frame.height <= one_frame.y
    for placed in drawing.boxes.values():
        frame = drawing.frames[placed.box.stop[0]]
        assert frame.x < placed.x and placed.x + placed.width < frame.x + frame.width
        assert frame.y < placed.y and placed.y + placed.height <= frame.y + frame.height
        tops = [y for *_, y in placed.plugs] + [y for *_, y in placed.rows]
        assert all(placed.y < y < placed.y + placed.height for y in tops)
    assert drawing.width <= 1280
    assert all(frame.x + frame.width <= drawing.width for frame in drawing.frames.values())


def test_every_text_fits_what_it_stands_in(what: Scene) -> None:
    root = ET.fromstring(drawn(what))
    edge = float(root.attrib["width"])
    for group in (root, *root.iter(f"{SVG}g")):
        if group.get("class", "").startswith(("hop", "legend")):
            continue
        rect = next((each for each in group.findall(f"{SVG}rect") if each.get("class", "").startswith(("box", "node"))), None)
        right = edge if rect is None else float(rect.attrib["x"]) + float(rect.attrib["width"])
        texts = [*group.findall(f"{SVG}text"), *(text for hop in group.findall(f"{SVG}g[@class='hop']") for text in hop)]
        for text in (each for each in texts if each.tag == f"{SVG}text"):
            assert float(text.attrib["x"]) + drawn_width(text) <= right, text.text


def drawn_width(text: ET.Element) -> float:
    style = text.attrib["class"].split()
    size = next(SIZES[each] for each in style if each in SIZES)
    bold = bool({"head", "title", "verdict", "number"} & set(style))
    whole = width(text.text or "", size, mono=bool({"mono", "plug"} & set(style)), bold=bold)
    return whole / 2 if "number" in style else whole


def test_lines_keep_clear_of_boxes(what: Scene) -> None:
    """They lead beside the boxes and touch only where they begin and end."""
    drawing = layout(what)
    found = lines(what, drawing)
    assert len(found) == len(what.pieces)
    for line in found:
        for (x1, y1), (x2, y2) in pairwise(line.points):
            assert x1 == x2 or y1 == y2
            for placed in drawing.boxes.values():
                inside_x = max(x1, x2) > placed.x + 0.1 and min(x1, x2) < placed.x + placed.width - 0.1
                inside_y = max(y1, y2) > placed.y + 0.1 and min(y1, y2) < placed.y + placed.height - 0.1
                assert not (inside_x and inside_y), (line, placed.title)


def test_lines_of_different_legs_never_run_on_one_another(what: Scene) -> None:
    drawing = layout(what)
    tracks = {leg: set(_tracks(what, drawing, leg)) for leg in LEGS}
    for one, other in combinations(LEGS, 2):
        assert not {x for x, _ in tracks[one]} & {x for x, _ in tracks[other]}


def _tracks(what: Scene, drawing: Drawing, leg: str) -> Iterator[tuple[float, str]]:
    """Where lines of a leg run from top to bottom."""
    for line in lines(what, drawing):
        if line.piece.leg == leg and line.piece.end[1] != "wire":
            yield from ((x1, "x") for (x1, y1), (x2, y2) in pairwise(line.points) if x1 == x2 and y1 != y2)


def test_a_tunnel_leads_through_both_nodes_ports_and_the_wire(explanation: Explanation) -> None:
    what = scene(explanation)
    drawing = layout(what)
    for line in lines(what, drawing):
        ends = line.piece.start, line.piece.end
        if CLIENT in ends or ends[0][0] == ends[1][0]:
            continue
        wires = [(top, top + drawing.wire) for top in drawing.wires]
        for node, _ in ends:
            frame = drawing.frames[node]
            assert any(frame.inner < x < frame.inner + 220 and y == frame.y - 11 for x, y in line.points)
        assert any(top < y < bottom for _, y in line.points for top, bottom in wires)


# --- what is on it -------------------------------------------------------------------------------------------------


def test_addresses_are_told_of_nodes_bridges_sandboxes_tunnels_and_tasks() -> None:
    text = svg(explained("2-service"))
    for address in (
        "eth0 192.168.77.1<", "docker_gwbridge 172.18.0.1/16", "eth1 172.18.0.2/16", "eth0 10.0.0.2/24", "VIP 10.0.0.4 of web",
        "br0 10.0.0.1/24", "vxlan0 VNI 4096", "eth0 10.0.0.5/24", "eth1 172.18.0.3/16",
    ):  # fmt: skip
        assert address in text, address


def test_hops_are_numbered_as_the_list_beside_them(explanation: Explanation) -> None:
    what = scene(explanation)
    page = html(explanation)
    picture, _, beside = page.partition("</svg>")
    in_picture = [int(number) for number in re.findall(r'<g class="hop" data-hop="(\d+)">', picture)]
    in_list = [int(number) for number in re.findall(r'<li [^>]*data-hop="(\d+)"', beside)]
    assert sorted(in_picture) == list(range(1, len(in_picture) + 1))
    assert set(in_list) == set(in_picture)
    shown = {row.number: (box, row) for box in what.boxes.values() for row in box.rows() if row.number}
    for (way, index), (stop, number) in what.where.items():
        step = (*explanation.ways[way].there, *explanation.ways[way].back)[index]
        assert stop == (step.node, step.namespace)
        if number:
            box, row = shown[number]
            assert box.stop == stop
            assert (row.style == "failed") == step.failed
            assert step.failed or _tells(row.label, step)


def _tells(label: str, step: Step) -> bool:
    """Whether a hop's label says what a step made of the packet."""
    after = step.after
    values = (after.source, after.destination.partition(":")[0], hex(after.mark), f"VNI {after.vni or step.before.vni}")
    return label.startswith("→ :") or label.endswith(("has it", "takes it")) or any(value in label for value in values)


def test_hops_of_a_way_are_numbered_in_its_order(explanation: Explanation) -> None:
    where = scene(explanation).where
    first = [number for (way, _), (_, number) in sorted(where.items()) if way == 0 and number]
    assert first == sorted(first) and first[0] == 1


def test_only_the_failing_place_is_red() -> None:
    for state in STATES:
        found = explained(state)
        boxes = {box.stop for box in scene(found).boxes.values() if box.failed}
        assert boxes == {(step.node, step.namespace) for way in found.ways for step in way.there + way.back if step.failed}
        picture = svg(found)
        assert len(re.findall(r'class="box \w+ bad"', picture)) == len(boxes)
        if all(not way.arrives for way in found.ways):
            assert 'class="line there bad"' in picture


def test_what_no_way_passes_is_grey() -> None:
    found = explained("faults/16-vxlan-port-dropped-input-node2")
    grey = {box.title for box in scene(found).boxes.values() if not box.passed and box.stop[0] == "swarm2"}
    assert grey == {"ingress_sbox", "overlay ingress", "task web.1"}
    assert svg(found).count('<g class="site idle"') == len(grey)
    assert svg(eight()).count('<g class="machine idle">') == 1


def test_the_verdict_is_in_every_picture(explanation: Explanation) -> None:
    root = ET.fromstring(svg(explanation))
    told = [text.text or "" for text in root.iter(f"{SVG}text") if text.get("class", "").startswith("verdict")]
    assert " ".join(told) == " ".join(explanation.verdict.split())
    assert unescape(html(explanation)).count(explanation.verdict) >= 3
    box = re.sub(r"<br/>", " ", re.search(r'n0\("(.*)"\)', mermaid(explanation))[1])  # type: ignore[index]
    assert explanation.verdict in box.replace("#lt;", "<").replace("#gt;", ">").replace("#quot;", '"').replace("#amp;", "&")


def test_a_legend_explains_what_is_drawn_and_no_more() -> None:
    healthy, broken = (svg(explained(state)) for state in ("2-service", "faults/16-vxlan-port-dropped-input-node2"))
    for words in ("request", "answer", "a hop's number", "gets no connections"):
        assert f">{words}</text>" in healthy
    assert ">does not arrive</text>" in broken
    assert ">does not arrive</text>" not in healthy
    assert "proxy" not in healthy


def test_many_nodes_stay_readable_and_the_rest_is_named() -> None:
    found = eight()
    assert layout(scene(found)).width <= 1280
    machines = tuple(Machine(name=f"node{number}", address=f"192.168.77.{number}", device="eth0") for number in range(2, 31))
    more = replace(found, ground=replace(found.ground, machines=(found.ground.machines[0], *machines)))
    what = scene(more)
    assert len(what.columns) == 8
    assert what.columns[0].node == "swarm1"
    assert what.more == ("not drawn: node9, node10, node11, node12, node13, node14, node15, node16 and 14 more nodes",)
    assert what.more[0] in svg(more)


def test_many_tasks_of_a_node_are_told_by_their_number() -> None:
    found = explained("2-service")
    sites = tuple(Site(node="swarm2", namespace=f"t{n}", kind="task", title=f"task web.{n}", service="web") for n in range(3, 20))
    what = scene(replace(found, ground=replace(found.ground, sites=(*found.ground.sites, *sites))))
    assert "swarm2 has 12 more tasks" in what.more
    assert "task web.2" in {box.title for box in what.boxes.values()}


def test_names_are_escaped_everywhere() -> None:
    found = explained("2-service")
    evil = 'x"><script>alert(1)</script>&'
    sites = tuple(replace(site, title=evil, note=evil) for site in found.ground.sites)
    asked = replace(found.question, client=evil, service=evil)
    bad = replace(found, verdict=evil, question=asked, ground=replace(found.ground, sites=sites, machines=(Machine(name=evil),)))
    assert ET.fromstring(svg(bad)) is not None
    for text in (svg(bad), html(bad), drawn(terrain(bad.ground)), of_ground(bad.ground)):
        assert "<script>alert" not in text
    assert '"><' not in "".join(mermaid(bad).splitlines()[1:])


# --- the page ------------------------------------------------------------------------------------------------------


def test_a_page_needs_nothing_else_and_lets_nothing_else_run(explanation: Explanation) -> None:
    page = html(explanation)
    for forbidden in ("src=", "@import", "http://", "https://", "<link", "onclick", "onload"):
        assert forbidden not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<script>") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_every_command_has_a_button_that_copies_it(explanation: Explanation) -> None:
    page = html(explanation)
    commands = [step.show for way in explanation.ways for step in (*way.there, *way.back) if step.show]
    commands += [command for cause in explanation.causes for command in (*cause.look, *cause.mend)]
    found = [unescape(each) for each in re.findall(r"<code>([^<]*)</code><button type=\"button\" class=\"copy\"", page)]
    assert sorted(found) == sorted(commands)


def test_every_step_knows_its_box(explanation: Explanation) -> None:
    picture, _, beside = html(explanation).partition("</svg>")
    boxes = set(re.findall(r'<g class="site[^"]*" data-box="(\d+)"', picture))
    steps = re.findall(r"<li [^>]*>", beside)
    assert len(steps) == sum(len(way.there) + len(way.back) for way in explanation.ways)
    assert all(re.search(r'data-box="(\d+)"', step)[1] in boxes for step in steps)  # type: ignore[index]


def test_the_broken_way_comes_first_and_is_open() -> None:
    for state in STATES:
        found = explained(state)
        assert [way.arrives for way in found.ways] == sorted(way.arrives for way in found.ways)
        ways = re.findall(r"<details( open)?>", html(found))
        assert ways[0] == " open"
        assert [bool(each) for each in ways] == [number == 0 or not way.arrives for number, way in enumerate(found.ways)]
        for cause in found.causes:
            assert cause.way < 0 or cause.step < 0 or _step(found, cause.way, cause.step).node in (cause.node, "")


def _step(found: Explanation, way: int, step: int) -> Step:
    return (*found.ways[way].there, *found.ways[way].back)[step]


# --- the flowchart -------------------------------------------------------------------------------------------------


def test_a_flowchart_begins_with_who_asks_and_has_no_box_that_hangs_alone(what: Scene) -> None:
    text = charted(what).splitlines()
    assert text[1] == "flowchart TD"
    assert text[2].strip().startswith('n0("')
    boxes = set(re.findall(r"^ +(n\d+)[\[(]", "\n".join(text), re.MULTILINE))
    edges = [re.fullmatch(r" +(n\d+) (?:-->|<-->|--x|---|-\.-|-\.->|-\. VXLAN \.-) (n\d+)", line) for line in text]
    ends = [{edge[1], edge[2]} for edge in edges if edge is not None]
    assert set().union(*ends) == boxes
    reached = {"n0"}
    for _ in boxes:
        reached |= {end for pair in ends if pair & reached for end in pair}
    assert reached == boxes


def test_a_flowchart_marks_what_failed_and_what_is_not_reached() -> None:
    text = mermaid(explained("faults/16-vxlan-port-dropped-input-node2"))
    assert re.search(r"class n\d+ failed", text)
    assert re.search(r"class n\d+,n\d+,n\d+ idle", text)
    assert re.search(r"n\d+ --x n\d+", text)


# --- the cluster ---------------------------------------------------------------------------------------------------


def test_a_cluster_is_drawn_without_a_question() -> None:
    found: Ground = ground(recorded("2-service"))
    text = drawn(terrain(found))
    for words in (
        "swarm1", "swarm2", "eth0 192.168.77.2", "ingress_sbox", "overlay ingress", "br0 10.0.0.1/24", "vxlan0 VNI 4096",
        "task web.1", "task web.2", "8080/tcp → web", "docker_gwbridge 172.18.0.1/16", "VXLAN tunnel",
    ):  # fmt: skip
        assert f"{words}<" in text, words
    tunnels, cables = ([piece for piece in terrain(found).pieces if piece.of == of] for of in ("tunnel", "cable"))
    assert len(tunnels) == 1
    assert len(cables) == 2 * 4 + 2, "two of each task and sandbox, one of each node"
    assert "<li " not in of_ground(found)


def test_a_node_that_was_not_read_is_there_all_the_same() -> None:
    cluster = recorded("2-service")
    names = replace(
        cluster.names, nodes=tuple(replace(n, absent="it is down" * (n.name == "swarm2")) for n in cluster.names.nodes)
    )
    half = replace(cluster, nodes={"swarm1": cluster.nodes["swarm1"]}, names=names)
    found = ground(half)
    assert [machine.absent for machine in found.machines] == ["", "it is down"]
    text = drawn(terrain(found))
    assert "was not read" in text
    assert "eth0 10.0.0.6<" in text, "what the manager knows of its task"


# --- measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "a", "x" * 400, "WWWW MMMM " * 9, "the usual words of a verdict, 10.0.0.1:8080", "漢字" * 40]
)
def test_wrapped_lines_fit(text: str) -> None:
    for bold in (False, True):
        found = wrapped(text, 120, 12, 3, bold=bold)
        assert 1 <= len(found) <= 3
        assert all(width(line, 12, bold=bold) <= 120 for line in found)
