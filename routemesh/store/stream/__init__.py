"""The store as a worker has it: a manager tells it what its node may see, and it reports what its node has seen.

Only managers have the cluster's store. A worker holds no credentials for it, and what it may write is what a report can say.
"""
