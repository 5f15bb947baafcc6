"""The gateway's certificates: which have expired, soon will, or are not for their services' names. PURE."""

from collections.abc import Iterable

from routemesh.doctor import Finding, State

_SOON = " expires on "


def findings(warnings: Iterable[str]) -> tuple[Finding, ...]:
    """What the gateway warns of (proxy.certificates.warnings), a finding each."""
    return tuple(
        Finding(
            what="certificate",
            where="gateway",
            state=State.OPTIONAL if _SOON in warning else State.WRONG,
            found=warning,
            effect="clients will refuse the connection" if _SOON in warning else "clients refuse the connection",
            fix="routemesh secret create NAME NEW.pem, then service update --label-add routemesh.http.tls=NAME",
        )
        for warning in warnings
    )
