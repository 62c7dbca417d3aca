"""`hanse provider start --cheat`: a provider that cheats on purpose, on a development chain only.

    names.py     the cheats by name, what they need, and where they are refused
    files.py     the model files that they serve
    engines.py   the engine of `start`'s options, with the cheats round it

For tests, the demo and the documentation: `docs/verification/cheats.md`. What brokers and engines
do then is in `hanse.provider.cheating` and `hanse.engines.cheating`.
"""
