"""Labels that say how connections are shared out: what they mean, and that whatever else is written is refused in one line."""

import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.errors import UserError
from routemesh.labels.balance import AFFINITY, ALIASES, LB, LOCALITY, MAX_AFFINITY_S, TABLE, WEIGHT, balancing
from routemesh.model import Balancing, Locality, Scheduler, Weights

ALLOWED = {
    LB: (*Scheduler, *ALIASES),
    AFFINITY: ("client-ip", "client-ip;timeout=3h", "1s to 31d"),
    WEIGHT: ("0-65535", "W (first)", "NODE=W", ".SLOT=W", "once"),
    LOCALITY: tuple(Locality),
}
"""What a refusal may name as allowed; it names all of it, of weights at least what is wrong."""

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True)
weights = st.integers(0, 65535)


def refusal(labels: Mapping[str, str]) -> str | None:
    try:
        balancing(labels)
    except UserError as refused:
        return str(refused)
    return None


def test_without_labels_connections_go_round() -> None:
    assert balancing({}) == balancing({"other": "rr"}) == Balancing()


@pytest.mark.parametrize(
    ("text", "scheduler"),
    [
        *((scheduler.value, scheduler) for scheduler in Scheduler),
        ("weighted", Scheduler.WRR),
        ("source-hash", Scheduler.SH),
        ("maglev", Scheduler.MH),
        ("least-conn", Scheduler.WLC),
    ],
)
def test_schedulers_have_their_names_and_some_have_others(text: str, scheduler: Scheduler) -> None:
    assert balancing({LB: text}) == Balancing(scheduler=scheduler)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("client-ip", 10_800),
        ("client-ip;timeout=1", 1),
        ("client-ip;timeout=90s", 90),
        ("client-ip;timeout=5m", 300),
        ("client-ip;timeout=3h", 10_800),
        ("client-ip;timeout=1d2h3m4s", 93_784),
        ("client-ip;timeout=31d", MAX_AFFINITY_S),
    ],
)
def test_a_client_stays_for_as_long_as_is_said(text: str, seconds: int) -> None:
    assert balancing({AFFINITY: text}) == Balancing(affinity_s=seconds)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("0", Weights(default=0)),
        ("65535", Weights(default=65535)),
        ("node1=5", Weights(nodes={"node1": 5})),
        ("2,node1=5,.3=0", Weights(default=2, nodes={"node1": 5}, slots={3: 0})),
        (" 2 , .12=1", Weights(default=2, slots={12: 1})),
    ],
)
def test_weights_without_a_scheduler_mean_wrr(text: str, weights: Weights) -> None:
    assert balancing({WEIGHT: text}) == Balancing(scheduler=Scheduler.WRR, weights=weights)
    assert balancing({WEIGHT: text, LB: "sed"}) == Balancing(scheduler=Scheduler.SED, weights=weights)


def test_weight_one_for_everybody_is_no_weight() -> None:
    assert balancing({WEIGHT: "1"}) == Balancing()


def test_a_slots_weight_comes_before_its_nodes_and_that_before_the_others() -> None:
    found = balancing({WEIGHT: "2,node1=5,.3=0"}).weights
    assert [found.of(slot, node) for slot, node in ((3, "node1"), (1, "node1"), (1, "node2"))] == [0, 5, 2]


@pytest.mark.parametrize(
    ("label", "text", "reason"),
    [
        (
            LB,
            "",
            "is not a scheduler; use one of rr, wrr, lc, wlc, sh, mh, sed, nq, random, weighted, source-hash, maglev, least-conn",
        ),
        (LB, "RR", "is not a scheduler"),
        (LB, "rr\n", "is not a scheduler"),
        (AFFINITY, "", "is not of the form client-ip or client-ip;timeout=3h (1s to 31d)"),
        (AFFINITY, "client-ip;", None),
        (AFFINITY, "cookie", "is not of the form"),
        (AFFINITY, "client-ip;timeout=", "is not of the form"),
        (AFFINITY, "client-ip;timeout=0", "is not of the form"),
        (AFFINITY, "client-ip;timeout=-1", "is not of the form"),
        (AFFINITY, "client-ip;timeout=31d1s", "is not of the form"),
        (AFFINITY, "client-ip;timeout=1h3d", "is not of the form"),
        (AFFINITY, "client-ip;timeout=1h;timeout=2h", "is not of the form"),
        (AFFINITY, "client-ip;expire=1h", "is not of the form"),
        (AFFINITY, "client-ip;timeout=\u0663h", "is not of the form"),
        (WEIGHT, "", "'' is not a weight; use 0-65535"),
        (WEIGHT, "65536", "'65536' is not a weight; use 0-65535"),
        (WEIGHT, "-1", "'-1' is not a weight; use 0-65535"),
        (WEIGHT, "node1=", "'' is not a weight; use 0-65535"),
        (WEIGHT, "1.5", "'1.5' is not a weight; use 0-65535"),
        (WEIGHT, "node1=1,2", "'2' is not of the form W (first), NODE=W or .SLOT=W"),
        (WEIGHT, "=1", "'=1' is not of the form W (first), NODE=W or .SLOT=W"),
        (WEIGHT, ".0=1", "'.0=1' is not of the form W (first), NODE=W or .SLOT=W"),
        (WEIGHT, "a b=1", "'a b=1' is not of the form W (first), NODE=W or .SLOT=W"),
        (WEIGHT, "node1=1,node1=2", "gives node1 two weights; name each node and slot once"),
        (WEIGHT, ".1=1,.1=1", "gives .1 two weights; name each node and slot once"),
        (LOCALITY, "local", "has an unknown value; use any, prefer-local, local-only"),
    ],
)
def test_what_is_none_of_these_is_refused(label: str, text: str, reason: str | None) -> None:
    found = refusal({label: text})
    if reason is None:
        assert found is None
    else:
        assert found is not None and found.startswith(f"label {label}={text!r}") and reason in found


@given(
    st.dictionaries(
        st.sampled_from(sorted(TABLE)), st.text() | st.text(string.ascii_lowercase + string.digits + ".,;=- \n", max_size=20)
    )
)
def test_no_text_crashes_and_a_refusal_is_one_line_that_says_what_is_allowed(labels: dict[str, str]) -> None:
    found = refusal(labels)
    if found is not None:
        assert found.isprintable()
        (label,) = [label for label in TABLE if found.startswith(f"label {label}=")]
        named = [word for word in ALLOWED[label] if word in found.partition(repr(labels[label]))[2]]
        assert named == list(ALLOWED[label]) or (label == WEIGHT and named)


@given(
    st.builds(
        Balancing,
        scheduler=st.sampled_from(Scheduler),
        affinity_s=st.integers(1, MAX_AFFINITY_S),
        weights=st.builds(
            Weights,
            default=weights,
            nodes=st.dictionaries(names, weights, max_size=3),
            slots=st.dictionaries(st.integers(1, 999), weights, max_size=3),
        ),
        locality=st.sampled_from(Locality),
    )
)
def test_everything_that_can_be_wanted_can_be_written(wanted: Balancing) -> None:
    entries = [str(wanted.weights.default)]
    entries += [f"{name}={weight}" for name, weight in wanted.weights.nodes.items()]
    entries += [f".{slot}={weight}" for slot, weight in wanted.weights.slots.items()]
    labels = {
        LB: wanted.scheduler.value,
        AFFINITY: f"client-ip;timeout={wanted.affinity_s}",
        WEIGHT: ",".join(entries),
        LOCALITY: wanted.locality.value,
    }
    assert balancing(labels) == wanted
