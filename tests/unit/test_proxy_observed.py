"""What a proxy has, by what it answered."""

from ipaddress import IPv4Address

from routemesh.model import Gateway, GatewayDriver, Http, ServiceId
from routemesh.proxy import nginx
from routemesh.proxy.observed import RunningProxy, amiss, table
from routemesh.proxy.routes import Backend, Route, RouteTable, Server
from routemesh.values import replace

AAA = Server("aaa", "web.1", 9, IPv4Address("10.0.0.9"), 80)
BBB = Server("bbb", "web.2", 10, IPv4Address("10.0.0.10"), 80)
WANTED = RouteTable(
    (Route("a.example", "/", "web"), Route("b.example", "/x", "raw")),
    (
        Backend("web", ServiceId("web"), Http(hosts=("a.example",), port=80), (AAA, BBB)),
        Backend("raw", ServiceId("raw"), Http(hosts=("b.example",), path="/x", port=443, passthrough=True), ()),
    ),
)
HAPROXY = RunningProxy(
    task="t",
    directory="/run",
    running="g",
    wanted="g",
    map="/run/routes.map",
    routes="0x55d0 a.example/ web\n0x55d1 b.example/x/ routemesh:https\n0x55d2 gone.example/ gone\n",
    servers="""1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port
3 web 9 aaa 10.0.0.9 2 0 1 1 80
3 web 10 bbb 10.0.0.10 2 0 1 1 80
""",
)


def test_haproxy_has_what_is_wanted() -> None:
    assert table(HAPROXY, GatewayDriver.HAPROXY, WANTED) == WANTED
    assert list(amiss(HAPROXY, GatewayDriver.HAPROXY, "web", WANTED)) == []


def test_what_haproxy_has_otherwise_is_told() -> None:
    other = replace(
        HAPROXY,
        running="old",
        routes="0x55d0 a.example/api/ web\n",
        servers=HAPROXY.servers.replace("10.0.0.9 2", "10.0.0.9 0").replace("bbb 10.0.0.10", "ccc 10.0.0.77"),
    )
    has = table(other, GatewayDriver.HAPROXY, WANTED)
    assert has.routes == (Route("a.example", "/api", "web"),)
    assert has.backend("web").servers == (Server("ccc", "ccc", 10, IPv4Address("10.0.0.77"), 80),)
    assert list(amiss(other, GatewayDriver.HAPROXY, "web", WANTED)) == [
        "haproxy has not taken up the newest configuration: it runs old, g is wanted",
        "haproxy's check of web.1 fails (label routemesh.http.health)",
        "haproxy does not know web.2, which serves",
    ]
    kept = replace(HAPROXY, servers=HAPROXY.servers.replace("10.0.0.9 2 0", "10.0.0.9 0 1"))
    assert list(amiss(kept, GatewayDriver.HAPROXY, "web", WANTED)) == ["haproxy has web.1 in maintenance, though it serves"]


def test_nginx_has_the_servers_of_its_file() -> None:
    made = nginx.render(WANTED, Gateway(), "/run", {}, "")
    seen = RunningProxy(task="t", directory="/run", running="g", wanted="g", servers=made.files[made.main])
    assert table(seen, GatewayDriver.NGINX, WANTED) == WANTED
    less = replace(seen, servers=seen.servers.replace("  server 10.0.0.9:80 max_fails=0;", ""))
    assert table(less, GatewayDriver.NGINX, WANTED).backend("web").servers == (BBB,)
