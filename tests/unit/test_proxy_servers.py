"""What a running HAProxy is told so that it has the table's servers."""

from ipaddress import IPv4Address

import pytest

from routemesh.errors import Unavailable
from routemesh.model import Http, ServiceId
from routemesh.proxy.routes import Backend, RouteTable, Server
from routemesh.proxy.servers import Present, parse, steps

ANSWER = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port
3 web 9 aaa 10.0.0.9 2 0 1 1 80
3 web 10 bbb 10.0.0.10 0 1 1 1 80
3 web 11 ccc 10.0.0.11 0 0 1 1 80
4 routemesh:tls 1 inner - 2 0 1 1 0

"""
AAA = Server("aaa", "web.1", 9, IPv4Address("10.0.0.9"), 80)
BBB = Server("bbb", "web.2", 10, IPv4Address("10.0.0.10"), 80)


def wanted(*servers: Server, http: Http | None = None) -> RouteTable:
    return RouteTable((), (Backend("web", ServiceId("web"), http or Http(hosts=("*",), port=80), servers),))


def test_answers_about_several_backends_are_read_as_one() -> None:
    head = ANSWER.partition("\n3 web 9")[0]
    found = parse(f"{head}\n3 web 9 aaa 10.0.0.9 2 0 1 1 80\n\n{head}\n\n{head}\n4 api 9 aaa 10.0.0.9 2 0 1 1 81\n\n")
    assert {key: server.port for key, server in found.items()} == {("web", "aaa"): 80, ("api", "aaa"): 81}


def test_the_answer_is_read_without_the_gateways_own_servers() -> None:
    assert parse(ANSWER) == {
        ("web", "aaa"): Present("10.0.0.9", 80, False, number=9),
        ("web", "bbb"): Present("10.0.0.10", 80, True, number=10),
        ("web", "ccc"): Present("10.0.0.11", 80, False, failing=True, number=11),
    }


@pytest.mark.parametrize("text", ["", "2\n# be_name\n", "Unknown command", "1\n# be_name srv_name\nweb aaa\n"])
def test_an_answer_of_another_kind_is_an_error(text: str) -> None:
    with pytest.raises(Unavailable, match="is not understood"):
        parse(text)


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert steps({("web", "aaa"): Present("10.0.0.9", 80, False)}, wanted(AAA)) == steps({}, wanted())
    assert steps({}, wanted()).urgent == ()


def test_a_new_task_is_added_and_checked_if_it_is_to_be() -> None:
    assert steps({}, wanted(AAA)).urgent == ("add server web/aaa 10.0.0.9:80 id 9", "enable server web/aaa")
    checked = steps({}, wanted(AAA, http=Http(hosts=("*",), port=80, health="/"))).urgent
    assert checked[-1] == "enable health web/aaa" and "check inter" in checked[0]


def test_new_tasks_come_before_old_ones_go() -> None:
    found = steps({("web", "aaa"): Present("10.0.0.9", 80, False)}, wanted(BBB))
    assert found.urgent[0].startswith("add server web/bbb")
    assert found.urgent[-1] == "set server web/aaa state maint"
    assert found.late == ("del server web/aaa",)
    assert found.backends == {"web"}


def test_what_has_no_requests_any_more_is_only_to_be_deleted() -> None:
    found = steps({("web", "aaa"): Present("10.0.0.9", 80, True)}, wanted())
    assert (found.urgent, found.late) == ((), ("del server web/aaa",))


def test_a_task_that_serves_again_is_let_in_again() -> None:
    assert steps({("web", "aaa"): Present("10.0.0.9", 80, True)}, wanted(AAA)).urgent == ("set server web/aaa state ready",)
