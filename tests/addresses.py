"""What is attached to the ingress network, for tests of clusters that have no other."""

from ipaddress import IPv4Address

from routemesh.model import Attachment, Node, Service, State, Task


def on_ingress(holder: Node | Service | Task) -> IPv4Address | None:
    """The one address on a network that a node's sandbox, a service or a task has; None without any."""
    attachments = holder.vips if isinstance(holder, Service) else holder.attachments
    assert len(attachments) <= 1
    return attachments[0].address if attachments else None


def ingress_address(holder: Node | Service | Task) -> IPv4Address:
    """The same of something that has one."""
    address = on_ingress(holder)
    assert address is not None
    return address


def attached(state: State, address: IPv4Address | None) -> tuple[Attachment, ...]:
    """An attachment to the state's ingress network with this address; none for None."""
    assert state.cluster is not None
    return () if address is None else (Attachment(state.cluster.ingress_id, address),)
