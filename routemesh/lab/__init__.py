"""A whole cluster on one machine: every node is a network namespace with a real daemon in it.

    topology    the machines and their addresses: PURE       wires   what connects them: PURE
    find        which labs there are, and where each keeps what
    control     up, down, kill, start, cut, heal, status
    daemons     starting the nodes' daemons and watching them get ready
    processes   finding and ending whatever runs in a lab's namespaces
    enter       running a command on one of its machines

All of lab NAME is below /run/routemesh/lab/NAME; nothing of it is in the host's own network namespace.
"""
