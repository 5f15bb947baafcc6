"""Two looks at what goes on changing: what both found is wrong, and nothing else."""

from routemesh.doctor import Finding, Severity
from routemesh.doctor.facts import Difference, Facts, NodeFacts
from routemesh.doctor.mesh import look
from routemesh.nodeplan import HOST, Verdict, XtChain
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace
from tests.unit.test_doctor_mesh import changed, healthy

BROKEN = Difference(HOST, "the rules of chain ip DOCKER-INGRESS differ from the plan", "nft -f …")
PASSING = Difference(HOST, "namespace 0123456789ab is missing", "ip netns add …")


def says(*differences: Difference, failures: tuple[str, ...] = ()) -> Facts:
    return Facts(nodes={"swarm2": NodeFacts(node="swarm2", differences=differences, failures=failures)})


def wrong(
    first: tuple[ClusterSnapshot, Facts], second: tuple[ClusterSnapshot, Facts], state: Severity = Severity.WRONG
) -> list[Finding]:
    found = look(*second, look(*first)).findings
    return [each for each in found if each.state is state]


def dropping() -> ClusterSnapshot:
    items = healthy().nodes["swarm2"].host.items
    drop = tuple(
        replace(item, rules=((Verdict("drop"),), *item.rules))
        if isinstance(item, XtChain) and (item.table, item.name) == ("filter", "FORWARD")
        else item
        for item in items
    )
    return changed("swarm2", HOST, items=drop)


def moved(cluster: ClusterSnapshot) -> ClusterSnapshot:
    """Its web tasks have all been replaced."""
    tasks = tuple(replace(task, id=f"{task.id}x") if task.service == "web" else task for task in cluster.names.tasks)
    return replace(cluster, names=replace(cluster.names, tasks=tasks))


def test_what_only_one_look_found_is_not_wrong() -> None:
    assert wrong((dropping(), Facts()), (healthy(), Facts())) == []
    assert wrong((healthy(), Facts()), (dropping(), Facts())) == []
    assert wrong((healthy(), says(PASSING)), (healthy(), says())) == []
    assert wrong((healthy(), says(failures=("a",))), (healthy(), says(failures=("b",)))) == []


def test_what_both_looks_found_is_wrong() -> None:
    (firewall,) = wrong((dropping(), Facts()), (dropping(), Facts()))
    assert (firewall.what, firewall.where) == ("firewall", "swarm2")
    (plan,) = wrong((healthy(), says(BROKEN, PASSING)), (healthy(), says(BROKEN)))
    assert plan.found == BROKEN.what
    (failure,) = wrong((healthy(), says(failures=("a", "b"))), (healthy(), says(failures=("b",))))
    assert failure.found == "b"


def test_a_service_whose_tasks_have_changed_is_told_and_not_judged() -> None:
    first, second = dropping(), moved(dropping())
    (firewall,) = wrong((first, Facts()), (second, Facts()))
    assert "web" not in firewall.effect  # the other service's ways fail in both looks
    (moving,) = [each for each in wrong((first, Facts()), (second, Facts()), Severity.OPTIONAL) if each.what == "tasks"]
    assert moving.where == "service web"
    assert moving.found.startswith("they changed while they were looked at; now web.1 is running")
