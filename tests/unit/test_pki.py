"""The cluster's certificates and tokens, and who gets past a handshake with them."""

import ssl
import stat
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from routemesh.credentials import tls
from routemesh.credentials.files import Place
from routemesh.errors import Unavailable, UserError
from routemesh.model import Role
from routemesh.pki import certificates, tokens
from routemesh.pki.subject import Subject, of_peer, role_name
from routemesh.values import replace
from tests.unit.daemon import modules_after
from tests.unit.pki import CLUSTER, HOUR_S, Issuer, issuer, shake

DAY_S = 24 * HOUR_S


@pytest.fixture(scope="module")
def ours() -> Issuer:
    return issuer()


@pytest.fixture
def server(ours: Issuer, tmp_path: Path) -> Place:
    return ours.give(tmp_path / "server", "node1", Role.MANAGER)


# --- certificates ------------------------------------------------------------------------------------------------


def test_a_certificate_names_node_role_and_cluster_and_serves_for_both_ends(ours: Issuer) -> None:
    key = certificates.new_key()
    subject = Subject("node1", Role.MANAGER, CLUSTER)
    made = certificates.issue(ours.authority, certificates.request(key), subject, 1e9, addresses=[IPv4Address("192.0.2.1")])
    found = certificates.read(made)
    assert (found.subject, found.signed_by) == (subject, certificates.root_name(ours.authority.certificate))
    assert (found.not_before, found.not_after) == (1e9 - HOUR_S, 1e9 + 90 * DAY_S)
    assert found.renew_at() == 1e9 + 45 * DAY_S
    read = x509.load_pem_x509_certificate(made.encode())
    usage = read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1", role_name(Role.MANAGER)]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("192.0.2.1")]


def test_a_request_must_be_signed_with_its_own_key_and_on_p256(ours: Issuer) -> None:
    subject = Subject("node1", Role.WORKER, CLUSTER)
    good = certificates.request(certificates.new_key())
    lines = good.splitlines()
    lines[-2] = lines[-2][::-1]
    for text in ("", "rubbish", "\n".join(lines), ours.authority.certificate):
        with pytest.raises(UserError, match="the certificate request is not one"):
            certificates.issue(ours.authority, text, subject, time.time())


def test_only_its_own_root_has_signed_a_certificate(ours: Issuer, server: Place) -> None:
    other = issuer()
    chain = server.load().chain
    assert certificates.signed(chain, [ours.authority.certificate])
    assert certificates.signed(chain, [other.authority.certificate, ours.authority.certificate])
    assert not certificates.signed(chain, [other.authority.certificate])


def test_a_root_is_no_nodes_certificate(ours: Issuer) -> None:
    with pytest.raises(UserError, match=r"^the certificate is not a node's: it names no node, role and cluster$"):
        certificates.read(ours.authority.certificate)
    with pytest.raises(UserError, match="no certificate in PEM"):
        certificates.read("rubbish")


def test_keys_are_not_shown(ours: Issuer, server: Place) -> None:
    assert "PRIVATE" not in repr(ours.authority)
    assert "PRIVATE" not in repr(server.load())


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_read_as_it_was_written(ours: Issuer) -> None:
    token = tokens.Token(tokens.digest(ours.authority.certificate), tokens.new_secret())
    assert tokens.parse(f" {token}\n") == token
    assert token.secret not in repr(token)
    assert tokens.is_of(token, ours.authority.certificate)
    assert not tokens.is_of(token, issuer().authority.certificate)


@pytest.mark.parametrize("text", ["", "x", "SWMTKN-1-abc-def", "RMTKN-1-abc-def", "RMTKN-1-" + "0" * 50 + "-" + "A" * 25])
def test_what_is_no_token_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(UserError, match="not a join token") as caught:
        tokens.parse(text)
    assert not text or text[-8:] not in str(caught.value)


def test_a_secret_stands_for_the_role_whose_it_is() -> None:
    known = {Role.MANAGER: tokens.new_secret(), Role.WORKER: tokens.new_secret()}
    assert len(set(known.values())) == 2
    assert {tokens.role_of(secret, known): secret for secret in known.values()} == known
    assert tokens.role_of(tokens.new_secret(), known) is None
    assert tokens.role_of("", {Role.WORKER: ""}) is None


def test_a_digest_is_of_a_certificate() -> None:
    with pytest.raises(UserError, match="not one in PEM"):
        tokens.digest("rubbish")


def test_to_read_a_token_loads_no_cryptography() -> None:
    assert not {"cryptography", "ssl"} & modules_after("import routemesh.pki.tokens, routemesh.pki.subject")


# --- files -------------------------------------------------------------------------------------------------------


def test_credentials_are_roots_own_files(ours: Issuer, server: Place) -> None:
    assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
    files = sorted(server.directory.iterdir())
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in files] == [("node.pem", 0o600), ("roots.pem", 0o600)]
    kept = server.load()
    both = replace(kept, roots=(*kept.roots, issuer().authority.certificate))
    server.save(both)
    assert server.load() == both
    assert len(list(server.directory.iterdir())) == 2
    server.remove()
    server.remove()
    assert not server.exists() and not server.directory.exists()


def test_credentials_that_can_not_be_read_are_one_line(server: Place) -> None:
    server.node.write_text("rubbish")
    with pytest.raises(Unavailable, match=r"node.pem is damaged: restore it, or leave the cluster and join it again$"):
        server.load()
    server.node.unlink()
    with pytest.raises(Unavailable, match=r"^can't read .*node.pem: No such file or directory"):
        server.load()


# --- handshakes --------------------------------------------------------------------------------------------------


def test_both_ends_know_one_another(ours: Issuer, server: Place, tmp_path: Path) -> None:
    client = ours.give(tmp_path / "client", "node2")
    here, there = shake(tls.listening(server), tls.connecting(client), "node1")
    assert of_peer(here.getpeercert()) == Subject("node2", Role.WORKER, CLUSTER)
    assert of_peer(there.getpeercert()) == Subject("node1", Role.MANAGER, CLUSTER)
    assert here.version() == "TLSv1.3"


def test_one_without_a_certificate_is_nobody(ours: Issuer, server: Place) -> None:
    here, _ = shake(tls.listening(server), tls.believing(ours.authority.certificate), role_name(Role.MANAGER))
    assert of_peer(here.getpeercert()) is None
    here, _ = shake(tls.listening(server), tls.believing_nobody_yet(), "anything")
    assert of_peer(here.getpeercert()) is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda ours, path: ours.give(path, "node2", now=time.time() - 91 * DAY_S), "expired"),
        (lambda ours, path: ours.give(path, "node2", now=time.time() + 2 * HOUR_S), "not yet valid"),
        (lambda ours, path: issuer().give(path, "node2", roots=(ours.authority.certificate,)), "unable to get local issuer"),
    ],
    ids=["expired", "not-yet", "foreign"],
)
def test_a_certificate_that_does_not_count_ends_the_handshake(
    ours: Issuer, server: Place, tmp_path: Path, make: Callable[[Issuer, Path], Place], reason: str
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        shake(tls.listening(server), tls.connecting(make(ours, tmp_path / "client")), "node1")


def test_a_clock_that_is_almost_an_hour_off_does_no_harm(ours: Issuer, server: Place, tmp_path: Path) -> None:
    ahead = ours.give(tmp_path / "client", "node2", now=time.time() + HOUR_S - 60)
    here, _ = shake(tls.listening(server), tls.connecting(ahead), "node1")
    assert of_peer(here.getpeercert()) is not None


def test_a_worker_is_not_taken_for_a_manager_nor_one_node_for_another(ours: Issuer, server: Place, tmp_path: Path) -> None:
    worker = ours.give(tmp_path / "worker", "node2")
    shake(tls.listening(worker), tls.connecting(server), "node2")
    for name in (role_name(Role.MANAGER), "node1"):
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            shake(tls.listening(worker), tls.connecting(server), name)


def test_another_clusters_manager_is_not_believed(ours: Issuer, tmp_path: Path) -> None:
    theirs = issuer("cluster2").give(tmp_path / "theirs", "node1", Role.MANAGER)
    client = ours.give(tmp_path / "client", "node2")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake(tls.listening(theirs), tls.connecting(client), "node1")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_nothing_older_than_tls_1_2(ours: Issuer, server: Place, tmp_path: Path) -> None:
    client = tls.connecting(ours.give(tmp_path / "client", "node2"))
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    here, _ = shake(tls.listening(server), client, "node1")
    assert here.version() == "TLSv1.2"
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|unsupported protocol"):
        shake(tls.listening(server), client, "node1")


# --- another root ------------------------------------------------------------------------------------------------


def test_a_new_root_is_believed_by_those_who_know_only_the_old_one(ours: Issuer, tmp_path: Path) -> None:
    new = issuer()
    bridge = certificates.cross_signed(new.authority.certificate, ours.authority, time.time())
    old, both = (ours.authority.certificate,), (new.authority.certificate, ours.authority.certificate)
    behind = ours.give(tmp_path / "behind", "node1", Role.MANAGER, roots=old)
    renewed = new.give(tmp_path / "renewed", "node2", chain=bridge, roots=both)
    for listener, dialler, name in ((behind, renewed, "node1"), (renewed, behind, "node2")):
        here, _ = shake(tls.listening(listener), tls.connecting(dialler), name)
        assert of_peer(here.getpeercert()) is not None


def test_once_the_old_root_is_dropped_its_certificates_do_not_count(ours: Issuer, tmp_path: Path) -> None:
    new = issuer()
    behind = ours.give(tmp_path / "behind", "node1", roots=(ours.authority.certificate, new.authority.certificate))
    moved = new.give(tmp_path / "moved", "node2")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tls.listening(moved), tls.connecting(behind), "node2")
