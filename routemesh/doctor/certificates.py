"""The gateway's certificates: which have expired, soon will, or are for other names; where their keys are on a disk. PURE."""

from collections.abc import Iterable, Mapping

from routemesh.doctor import Finding, Severity
from routemesh.model import CertificateWarning


def findings(warnings: Iterable[CertificateWarning], keys_on_disk: Mapping[str, str]) -> tuple[Finding, ...]:
    """A finding for each that the gateway warns of (proxy.certificates.warnings), and for each node with keys on a disk."""
    on_disk = (
        Finding(
            what="certificate keys",
            where=node,
            state=Severity.OPTIONAL,
            found=f"on {kind}",
            effect="anyone who gets the disk or a copy of it has the keys",
            fix="mount a tmpfs for the run directory (/run is one on a machine with systemd)",
        )
        for node, kind in keys_on_disk.items()
    )
    return (*map(_of_warning, warnings), *on_disk)


def _of_warning(warning: CertificateWarning) -> Finding:
    soon = warning.amiss == "soon"
    return Finding(
        what="certificate",
        where="gateway",
        state=Severity.OPTIONAL if soon else Severity.WRONG,
        found=warning.text,
        effect="clients will refuse the connection" if soon else "clients refuse the connection",
        fix="routemesh secret create NAME NEW.pem, then service update --label-add routemesh.http.tls=NAME",
    )
