"""The command line: docker's words and flags, one file per group of subcommands.

    main       the `routemesh` command: which subcommand is in which file, what an error looks like, the exit status
    values     what people type for one value: a port, a duration
    settings   the flags of `service create` and `service update` and what each does to a spec: PURE
    output     tables, JSON, times as people say them
    progress   waiting for a service to converge

Only what a subcommand needs is loaded, since start-up time counts.
"""
