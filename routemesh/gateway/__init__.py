"""One node's share of the gateway: bring its proxies to what the state says, and say how far they are."""
