"""Transactions that are mined once, whatever happens: start reading at `outbox`.

`outbox` moves entries through their states, `signing` makes bytes, `tracking` finds out what became
of them; `fees` and `transactions` are pure.
"""

from hanse.chain.outbox.fees import Fee, FeePolicy
from hanse.chain.outbox.outbox import POLL_INTERVAL_S, Outbox

__all__ = ["Outbox", "Fee", "FeePolicy", "POLL_INTERVAL_S"]
