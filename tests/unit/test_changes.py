"""The difference of two states, made again, gives the second; what did not change stays the same object."""

from hypothesis import given
from hypothesis import strategies as st

from routemesh.model import Cluster, Service, ServiceId, ServiceSpec, State
from routemesh.store.changes import apply, committed
from routemesh.values import replace

_CLUSTERS = st.none() | st.builds(Cluster, id=st.sampled_from("ab"), ingress_id=st.just("i"), created_at=st.just(0.0))


def service(name: str, version: int) -> Service:
    return Service(id=ServiceId(name), spec=ServiceSpec(name=name), version=version, created_at=0.0, updated_at=0.0)


@st.composite
def states(draw: st.DrawFn) -> State:
    versions = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2)))
    return State(
        revision=draw(st.integers(0, 5)),
        cluster=draw(_CLUSTERS),
        services={ServiceId(name): service(name, version) for name, version in versions.items()},
    )


@given(before=states(), after=states())
def test_edits_lead_from_one_state_to_the_other(before: State, after: State) -> None:
    state, edits = committed(before, after)
    assert apply(before, edits, state.revision) == state
    assert without_revisions(state) == without_revisions(after)
    assert state.revision == before.revision + bool(edits)
    assert committed(state, after) == (state, ())


@given(before=states(), after=states())
def test_only_what_differs_is_edited(before: State, after: State) -> None:
    state, edits = committed(before, after)
    edited = {edit.id for edit in edits if edit.kind == "service"}
    for key, value in before.services.items():
        assert (state.services.get(key) is value) == (ServiceId(key) not in edited)
    if not edited:
        assert state.services is before.services


def without_revisions(state: State) -> State:
    return replace(
        state,
        revision=0,
        cluster=state.cluster and replace(state.cluster, revision=0),
        services={key: replace(value, revision=0) for key, value in state.services.items()},
    )
