"""The cluster's own certificate authority: certificates that name a node, its role and its cluster; join tokens.

Source of the scheme: moby/swarmkit, ca/certificates.go (common name = node, organizational unit = role, organization = cluster).
"""
