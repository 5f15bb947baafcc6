"""What doctor makes of the gateway's warnings."""

from time import time

from routemesh.decide import admit
from routemesh.doctor import Severity
from routemesh.doctor.certificates import findings
from routemesh.gateway import selfsigned
from routemesh.proxy.certificates import warnings
from tests.simulation import Simulation
from tests.unit.test_labels_http import GATEWAY, spec


def test_certificates_that_expire_have_expired_or_are_for_others() -> None:
    simulation = Simulation()
    simulation.create(GATEWAY)
    for name, host, days in (
        ("good", "good.example", 90),
        ("soon", "soon.example", 7),
        ("old", "old.example", -1),
        ("other", "x", 90),
    ):
        pem = selfsigned.make((host,), days)
        simulation.commit(admit.create_secret(simulation.state, name, pem, simulation.now))
        simulation.create(spec(name, host=f"{name}.example", tls=name))

    found = findings(warnings(simulation.state, time()), {"node1": "ext4"})
    assert [(each.state, each.found.partition(" on ")[0]) for each in found] == [
        (Severity.WRONG, "service old: certificate old has expired"),
        (Severity.WRONG, "service other: certificate other is not for other.example; it is for x"),
        (Severity.OPTIONAL, "service soon: certificate soon expires"),
        (Severity.OPTIONAL, "on ext4"),
    ]
