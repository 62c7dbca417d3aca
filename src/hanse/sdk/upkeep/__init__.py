"""Keeping sub-accounts by itself: opened, filled up and emptied, within a cap.

    settings = Settings(..., wallet=session_key, upkeep=UpkeepSettings(target=5_000_000, ...))
    async with Hanse.open(settings) as hanse: ...

rules   what to move next, from facts alone
moves   what was moved and why, durable before it is sent
keeper  looks, decides, moves; one transaction at a time

The wallet that owns the money is needed once: it sends asset and some native coin to a session key.
That key has the account, signs the vouchers and moves the money here; what lies idle goes back.

Source: docs/decisions/0025-keys-and-budgets.md.
"""

from hanse.sdk.upkeep.rules import UpkeepSettings

__all__ = ["UpkeepSettings"]
