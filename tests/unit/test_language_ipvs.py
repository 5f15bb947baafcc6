"""What a person would type to make IPVS what a plan wants."""

from ipaddress import IPv4Address

import pytest

from routemesh.language import command
from routemesh.nodeplan import Change, Create, Delete, IpvsDestination, IpvsService, IpvsTimeouts, Op
from routemesh.values import replace

INSIDE = "nsenter --net=/run/routemesh/netns/ingress_sbox "
SERVICE = IpvsService(mark=256, scheduler="rr")
STICKY = IpvsService(mark=257, scheduler="mh", persistent_s=10800, fallback=True)
DESTINATION = IpvsDestination(mark=256, address=IPv4Address("10.0.0.8"))
OTHER = replace(DESTINATION, port=80, weight=0, method="tunnel")
TIMEOUTS = IpvsTimeouts(tcp_s=432_000, tcp_fin_s=120, udp_s=300)


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Create("ingress_sbox", SERVICE), "ipvsadm -A -f 256 -s rr"),
        (Change("ingress_sbox", SERVICE, replace(SERVICE, scheduler="wlc")), "ipvsadm -E -f 256 -s wlc"),
        (Create("ingress_sbox", STICKY), "ipvsadm -A -f 257 -s mh -p 10800 -b mh-fallback"),
        (Delete("ingress_sbox", STICKY), "ipvsadm -D -f 257"),
        (Create("ingress_sbox", DESTINATION), "ipvsadm -a -f 256 -r 10.0.0.8:0 -m -w 1"),
        (Change("ingress_sbox", OTHER, OTHER), "ipvsadm -e -f 256 -r 10.0.0.8:80 -i -w 0"),
        (Change("ingress_sbox", OTHER, replace(OTHER, method="route")), "ipvsadm -e -f 256 -r 10.0.0.8:80 -g -w 0"),
        (Delete("ingress_sbox", replace(OTHER, method="other")), "ipvsadm -d -f 256 -r 10.0.0.8:80"),
        (Create("ingress_sbox", TIMEOUTS), "ipvsadm --set 432000 120 300"),
        (Delete("ingress_sbox", TIMEOUTS), "ipvsadm -L --timeout"),
    ],
)
def test_commands(op: Op, text: str) -> None:
    assert command(op) == INSIDE + text
