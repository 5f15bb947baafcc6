"""Tasks as plain processes of the host, each in namespaces of its own."""
