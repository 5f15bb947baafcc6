"""One node's share of the cluster: bring the kernel and the tasks to what the state says, and report what is so."""
