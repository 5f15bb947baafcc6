"""Services that the gateway's proxies leave out, and proxies that do not follow. PURE."""

from collections.abc import Mapping

from routemesh.doctor import Finding, Severity


def findings(refused: Mapping[str, str], lagging: Mapping[str, str]) -> tuple[Finding, ...]:
    """A finding for each service that proxies refuse (→ which do, and why), and for each node whose proxy lags (→ why)."""
    left_out = (
        Finding(
            what=f"service {service}",
            where="gateway",
            state=Severity.WRONG,
            found=said,
            effect="its clients get 503; other services are not affected",
            fix="correct what the proxy names: the service's labels routemesh.http.…, or its certificate",
        )
        for service, said in refused.items()
    )
    behind = (
        Finding(
            what="proxy",
            where=node,
            state=Severity.WRONG,
            found=error,
            effect="it does not follow the cluster: its clients do not see later changes",
            fix="routemesh service logs gateway",
        )
        for node, error in lagging.items()
    )
    return (*left_out, *behind)
