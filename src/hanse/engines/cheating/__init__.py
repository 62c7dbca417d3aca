"""Cheats of an engine, for tests, the demo and the documentation; a development chain only.

Each is an engine round another one, behind the offer of what was promised:

    substituting.py   promise one model and answer by another: quantise, swap, other-copy,
                      skip-layer, kv4 (the same file, another cache) and forward (somebody's API)
    dropping.py       answer without the system messages, and bill them: drop-system
    late_proof.py     text of a cheap model, fingerprints by one prefill of the promised copy:
                      cheap-text-prefill
    passing.py        what all of them are: an engine round another one

Which files and addresses they serve is the operator's to say (`hanse provider start --cheat`);
files are made by `hanse.models`, which engines do not know. What each one gains and what catches
it: `docs/verification/cheats.md`. Those of brokers: `hanse.provider.cheating`.
"""

from hanse.engines.cheating.dropping import SystemDropper
from hanse.engines.cheating.late_proof import LateProver
from hanse.engines.cheating.substituting import Substitute

__all__ = ["LateProver", "Substitute", "SystemDropper"]
