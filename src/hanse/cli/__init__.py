"""The command line: `hanse`.

    main       entry point; the table of commands, each imported only when it runs
    framework  click with Hanse's manners: `--home` and `--json` everywhere, examples in every help
    failures   every error as one line and what to do, or as JSON, with the table's exit code
    output     rich tables for people, one JSON document for programs
    session    what one invocation works with: home folder, network, keys, amounts
    settings   TOML files of the provider and the gateway
    network    HOME/network.json: which chain, which contracts, which asset
    control    one process a folder, and how `settle` asks a running broker
    reference  writes docs/cli.md from the help texts
    commands/  one module a command: options, help, output
    buying/    what the commands of the user's side do
    selling/   what the commands of the provider's side do

A command imports what it needs inside its function, so that `hanse --help` stays quick.
"""
