"""Whether the nodes' engines can do what a service asks for."""

import pytest

from routemesh.decide import admit
from routemesh.decide.admit.engines import check_marks
from routemesh.errors import Conflict, UserError
from routemesh.model import FIRST_FWMARK, LAST_FWMARK, Scheduler, ServiceId, ServiceSpec
from routemesh.plan.engines import schedulers
from routemesh.values import replace
from tests.simulation import WEB, Simulation

ENGINES = ("nftables", "ipvs")


def cluster(*engines: str) -> Simulation:
    made = Simulation(nodes=len(engines))
    nodes = {node.id: replace(node, engine=engine) for node, engine in zip(made.state.nodes.values(), engines, strict=True)}
    made.commit(replace(made.state, nodes=nodes))
    return made


def shared_out(by: Scheduler, spec: ServiceSpec = WEB) -> ServiceSpec:
    return replace(spec, labels={"routemesh.lb": by.value})


def refusal(simulation: Simulation, spec: ServiceSpec) -> str | None:
    try:
        admit.create_service(simulation.state, spec, simulation.now)
    except UserError as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scheduler", Scheduler)
def test_an_engine_has_its_schedulers_and_no_others(engine: str, scheduler: Scheduler) -> None:
    found = refusal(cluster(engine), shared_out(scheduler))
    if scheduler in schedulers(engine):
        assert found is None
    else:
        allowed = ", ".join(sorted(schedulers(engine)))
        assert found == (
            f"service web: engine {engine} (of node1) has no scheduler '{scheduler}' (label routemesh.lb); use one of: {allowed}"
        )


def test_every_node_must_have_the_scheduler() -> None:
    found = refusal(cluster("ipvs", "nftables", "nftables"), shared_out(Scheduler.SED))
    common = schedulers("nftables") & schedulers("ipvs")
    assert found == (
        "service web: engine nftables (of node2, node3) has no scheduler 'sed' (label routemesh.lb); "
        f"use one of: {', '.join(sorted(common))}"
    )
    for scheduler in common:
        assert refusal(cluster("nftables", "ipvs"), shared_out(scheduler)) is None


def test_a_service_that_publishes_nothing_is_not_asked() -> None:
    assert refusal(cluster("ipvs"), shared_out(Scheduler.RANDOM, replace(WEB, publish=()))) is None


def test_an_update_is_checked_as_well() -> None:
    made = cluster("ipvs")
    made.create(WEB)
    with pytest.raises(UserError, match="has no scheduler 'random'"):
        made.update(labels={"routemesh.lb": "random"})
    made.update(labels={"routemesh.lb": "sh"})
    assert made.service("web").spec.balancing.scheduler is Scheduler.SH


def test_a_node_that_can_not_do_what_a_service_needs_stays_out() -> None:
    made = cluster("ipvs")
    made.create(shared_out(Scheduler.SED))
    (node,) = made.state.nodes.values()
    assert Scheduler.SED not in schedulers("nftables")
    with pytest.raises(Conflict) as caught:
        admit.join(made.state, replace(node, engine="nftables"), made.now)
    assert str(caught.value) == (
        "node node1: its engine nftables has no scheduler 'sed' (label routemesh.lb), which service web needs; "
        "join with another --engine, or change that label first"
    )
    admit.join(made.state, node, made.now)
    made.remove("web")
    admit.join(made.state, replace(node, engine="nftables"), made.now)


def test_there_are_as_many_services_that_publish_as_marks() -> None:
    made = cluster("ipvs")
    made.create(WEB)
    (web,) = made.state.services.values()
    marks = LAST_FWMARK - FIRST_FWMARK + 1
    silent = replace(web, id=ServiceId("silent"), spec=replace(WEB, publish=()))
    others = {key: replace(web, id=key) for key in (ServiceId(str(number)) for number in range(marks - 1))}
    state = replace(made.state, services={**others, silent.id: silent})
    check_marks(state, web)
    check_marks(replace(state, services={**state.services, web.id: web}), web)
    one_more = replace(web, id=ServiceId("one more"))
    full = replace(state, services={**state.services, one_more.id: one_more})
    with pytest.raises(Conflict) as caught:
        check_marks(full, web)
    assert str(caught.value) == (
        f"service web: all {marks} firewall marks are in use, one per service that publishes ports; "
        "remove a service, or publish its ports with another one"
    )
    check_marks(full, silent)
