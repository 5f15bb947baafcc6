"""What the gateway's proxies should do, from the cluster's state. PURE (rule 1).

routes     which host and path leads to which service, and to which of its tasks
haproxy    a table of routes as HAProxy's configuration        nginx    as nginx's
servers    what to tell a running HAProxy so that it has the table's servers
explain    where a request would go, and why
external   configurations for proxies outside of the cluster
"""
