"""What a lab's making asks before it begins."""

import pytest

from routemesh.errors import Unavailable, UserError
from routemesh.lab import control
from routemesh.lab.find import Lab
from routemesh.nodeplan import Capabilities
from routemesh.values import replace

WITHOUT_IP_VS = Capabilities(nf_tables=True, ip_vs=False, kernel="6.18.0", iptables="nft")


def test_an_engine_that_the_kernel_can_not_run_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(name="never-made", nodes=1, managers=1, engine="ipvs", mtu_bytes=1500)
    monkeypatch.setattr(control, "_capabilities", lambda _: WITHOUT_IP_VS)
    monkeypatch.setattr(control, "_apply", lambda *_: pytest.fail("something was made"))
    monkeypatch.setattr(Lab, "directory", property(lambda _: pytest.fail("the lab's directory was asked for")))
    with pytest.raises(UserError, match=r"which kernel 6\.18\.0 does not have \(./run uml .*\); use --engine nftables"):
        control.up(lab)


def test_a_store_that_can_not_be_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(name="never-made", nodes=3, managers=3, engine="auto", mtu_bytes=1500, store="etcd")
    monkeypatch.setattr(control, "_capabilities", lambda _: WITHOUT_IP_VS)
    monkeypatch.setattr("shutil.which", lambda _: None)
    for unmakeable, why, kind in (
        (lab, "there is no etcd on this machine: install Debian's etcd-server", Unavailable),
        (replace(lab, joined=True), "leave out --join or --store etcd", UserError),
    ):
        with pytest.raises(kind, match=why):
            control.up(unmakeable)
        assert not lab.directory.exists()
