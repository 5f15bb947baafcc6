"""The store of a cluster of machines: etcd, spoken to over its v3 JSON gateway."""
