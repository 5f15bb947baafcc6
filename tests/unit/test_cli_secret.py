"""`routemesh secret create` says what it was given where that is of no use."""

from pathlib import Path

import pytest

from routemesh.gateway import selfsigned
from tests.unit.daemon import cluster, typist


def test_what_is_no_certificate_is_kept_and_called_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0::/root:/bin/sh\n")
    with cluster(tmp_path, ("node1",)) as (daemon,):
        code, out, err = typist(daemon.socket, capfd, monkeypatch)("secret", "create", "x", str(file))
        assert code == 0
        assert [secret.id for secret in daemon.client.secrets()] == [out.strip()]
        certificate = tmp_path / "app.pem"
        certificate.write_bytes(selfsigned.make(("app.example.com",), 90))
        assert typist(daemon.socket, capfd, monkeypatch)("secret", "create", "app", str(certificate))[2] == ""
    assert err == "note: x is no certificate with its key in PEM, which is all that services use a secret for\n"
