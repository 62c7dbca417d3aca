"""A stake in words: a provider's own, whichever side it is looked at from."""

from hanse.settlement.money.places import REFUND_GRACE_S, Alarm, format_duration


def find_stake_alarm(
    stake: int, unbonding_until_s: int, now_s: int, *, condemned: bool = False
) -> list[Alarm]:
    """A stake that has come free and lies there all the same; or one that is gone."""
    if condemned:
        message = "a proof of fraud against this provider was accepted; it cannot sell again"
        return [Alarm("condemned", 0, 0, message)]
    late_s = now_s - unbonding_until_s
    if not (stake and unbonding_until_s) or late_s <= REFUND_GRACE_S:
        return []
    return [
        Alarm(
            "unbonding_overdue",
            stake,
            unbonding_until_s,
            f"the stake has been free for {format_duration(late_s)} and was not taken out",
            "hanse provider unbond --finish",
        )
    ]


def describe_stake(stake: int, unbonding_until_s: int, now_s: int) -> tuple[str, str, str]:
    """Why a stake is there, until when, and the command that frees it."""
    if not unbonding_until_s:
        return (
            "stands for the provider's word: without it nobody can fund it",
            "the provider leaves, and then the unbonding time",
            "hanse provider unbond",
        )
    if now_s < unbonding_until_s:
        why = "unbonding: it still answers for what was signed before"
        return why, "its unbonding time ends", "hanse provider unbond --finish"
    return "its unbonding time is over", "anyone pays it out", "hanse provider unbond --finish"
