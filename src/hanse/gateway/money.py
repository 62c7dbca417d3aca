"""What a gateway's wallet holds, as JSON for whoever runs it.

Source: `hanse.sdk.money`.
"""

from typing import Any

from hanse.sdk.money import Money


def money_to_json(money: Money) -> dict[str, Any]:
    """Every place with its amount; amounts are decimal strings, as everywhere on the wire."""
    return {
        "user": money.user,
        "block": money.block,
        "total": str(money.total),
        "paid": str(money.paid),
        "places": [
            {
                "place": place.place,
                "amount": str(place.amount),
                "provider": place.provider,
                "signer": place.signer,
                "transaction_hash": place.transaction_hash,
                "unlock_time_s": place.unlock_time_s,
            }
            for place in money.places
        ],
        "differences": list(money.differences),
    }
