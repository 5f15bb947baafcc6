"""The members of etcd in a lab, each on a node, in its namespace and on its disk: they reach each other as machines would.

They and the daemons speak TLS, with certificates of an authority that signs while the lab is made and is forgotten then. A node's
power cut ends its member; what that has written stays, as on a disk. The file `etcd` in a node's run directory says which process
it is.
"""

import http.client
import shutil
import ssl
import time
from contextlib import suppress
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.lab import daemons, topology
from routemesh.lab.find import Lab
from routemesh.options import ETCD_PORT

_PEER_PORT = 2380
_KEPT_REVISIONS = 1000
_READY_DEADLINE_S = 30.0
_POLL_S = 0.05
_OK = 200


def check() -> None:
    """Raises Unavailable where etcd is not installed."""
    if shutil.which("etcd") is None:
        raise Unavailable("there is no etcd on this machine: install Debian's etcd-server (and stop the service that it starts)")


def prepare(lab: Lab) -> None:
    """Give every node what proves it to the members, and members what proves them."""
    from routemesh.pki import certificates
    from routemesh.pki.subject import Subject

    now = time.time()
    root = certificates.make_root(lab.name, now)
    for name in lab.node_names:
        node = lab.node(name)
        key = certificates.new_key()
        subject = Subject(node=name, role=node.role, cluster=lab.name)
        certificate = certificates.issue(root, certificates.request(key), subject, now, addresses=[node.advertise])
        for directory in (node.data_dir, lab.etcd_directory(name)):
            directory.mkdir(mode=0o700, parents=True)
        for path, text in ((node.keys.ca, root.certificate), (node.keys.certificate, certificate), (node.keys.key, key)):
            assert path is not None, "a node of a lab with etcd has all three"
            path.touch(mode=0o600)
            path.write_text(text)


def start(lab: Lab, name: str) -> bool:
    """Start a node's member, if it has one that does not run; whether it has."""
    if name not in lab.members or daemons.noted_pid(note(lab, name)) is not None:
        return False
    daemons.run_on(lab, name, _command(lab, name), lab.etcd_directory(name) / "etcd.log", note(lab, name))
    return True


def note(lab: Lab, name: str) -> Path:
    """The file that says which process is a node's member."""
    return lab.node(name).run_dir / "etcd"


def wait_ready(lab: Lab) -> None:
    """Return when the members have a leader. Raises Unavailable when they have not in time, or one has ended."""
    deadline = time.monotonic() + _READY_DEADLINE_S
    waiting = list(lab.members)
    while waiting := [name for name in waiting if not _is_healthy(lab, name)]:
        for name in waiting:
            if daemons.noted_pid(note(lab, name)) is None or time.monotonic() > deadline:
                log = lab.etcd_directory(name) / "etcd.log"
                raise Unavailable(f"lab {lab.name}: etcd on {name} did not start: {daemons.last_line(log)}")
        time.sleep(_POLL_S)


def _is_healthy(lab: Lab, name: str) -> bool:
    node = lab.node(name)
    assert node.keys.certificate is not None
    context = ssl.create_default_context(cafile=node.keys.ca)
    context.load_cert_chain(node.keys.certificate, node.keys.key)
    with netns.entered(lab.netns(name)), suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPSConnection(str(topology.address(name)), ETCD_PORT, timeout=1, context=context)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == _OK
        finally:
            connection.close()
    return False


def _command(lab: Lab, name: str) -> tuple[str, ...]:
    node = lab.node(name)
    client, peer = (f"https://{node.advertise}:{port}" for port in (ETCD_PORT, _PEER_PORT))
    together = ",".join(f"{each}=https://{topology.address(each)}:{_PEER_PORT}" for each in lab.members)
    flags = {
        "name": name,
        "data-dir": lab.etcd_directory(name) / "data",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": together,
        "initial-cluster-token": lab.name,
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": _KEPT_REVISIONS,
        "logger": "zap",
        "log-level": "error",  # 3.4 warns of every request that comes with a certificate
    }
    for prefix in ("", "peer-"):
        flags |= {
            f"{prefix}trusted-ca-file": node.keys.ca,
            f"{prefix}cert-file": node.keys.certificate,
            f"{prefix}key-file": node.keys.key,
            f"{prefix}client-cert-auth": "true",
        }
    return (shutil.which("etcd") or "etcd", *(f"--{flag}={value}" for flag, value in flags.items()))
