"""The user's side of Escrow: deposit, withdraw, fund, open, and refunds with their lock time.

Every `apply_` takes the state and returns the next one with its effects, or raises what the
contract reverts with. The asset is taken to be honest: what it refuses is not a rule of ours.

Source: `Escrow.vy`; docs/decisions/0004 and 0005.
"""

from collections.abc import Sequence
from dataclasses import replace

from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund, OpenIntent
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.registry import is_active
from hanse.protocol.ledger.state import (
    NO_REFUND,
    NO_SUB_ACCOUNT,
    Effect,
    Emitted,
    Ledger,
    Moved,
    PendingRefund,
    Step,
    SubAccountId,
)
from hanse.protocol.limits import AMOUNT_MAX, SUB_ACCOUNTS_PER_OPEN_MAX
from hanse.protocol.signatures import ZERO_ADDRESS, Address, recover_signer


def apply_deposit(ledger: Ledger, user: Address, amount: int) -> Step:
    """Wallet -> account. Refuses "amount"."""
    if not 0 < amount <= AMOUNT_MAX:
        raise refuse("amount", f"a deposit of {amount} is outside 1 .. {AMOUNT_MAX}")
    accounts = {**ledger.accounts, user: ledger.accounts.get(user, 0) + amount}
    after = replace(ledger, accounts=accounts, escrow_held=ledger.escrow_held + amount)
    return Step(
        after, (Emitted("Deposited", {"user": user, "amount": amount}), Moved(user, amount))
    )


def apply_withdraw(ledger: Ledger, user: Address, amount: int) -> Step:
    """Account -> wallet; asks nobody. Refuses "amount", "balance"."""
    free = ledger.accounts.get(user, 0)
    if amount <= 0:
        raise refuse("amount", f"a withdrawal of {amount} is not above 0")
    if free < amount:
        raise refuse("balance", f"the account holds {free}, {amount} are asked for")
    accounts = {**ledger.accounts, user: free - amount}
    after = replace(ledger, accounts=accounts, escrow_held=ledger.escrow_held - amount)
    effect = Emitted("Withdrawn", {"user": user, "amount": amount})
    return Step(after, (effect, Moved(user, -amount)))


def apply_fund(ledger: Ledger, user: Address, fund: Fund) -> Step:
    """Account -> sub-account; first cancels as much of a pending refund.

    Refuses "amount", "signer", "provider", "balance".
    """
    free = ledger.accounts.get(user, 0)
    after, cost, effect = _fund(ledger, user, fund, free)
    return Step(replace(after, accounts={**after.accounts, user: free - cost}), (effect,))


def apply_open(ledger: Ledger, user: Address, deposit: int, funds: Sequence[Fund]) -> Step:
    """Deposit and fund several sub-accounts, all or nothing. Refuses what its parts refuse."""
    if len(funds) > SUB_ACCOUNTS_PER_OPEN_MAX:
        raise refuse("", f"{len(funds)} sub-accounts, at most {SUB_ACCOUNTS_PER_OPEN_MAX} at once")
    if not 0 <= deposit <= AMOUNT_MAX or (deposit == 0 and not funds):
        raise refuse("amount", f"a deposit of {deposit} with {len(funds)} sub-accounts")
    effects: list[Effect] = []
    if deposit > 0:
        effects.append(Emitted("Deposited", {"user": user, "amount": deposit}))
    free = ledger.accounts.get(user, 0) + deposit
    after = ledger
    for fund in funds:
        after, cost, effect = _fund(after, user, fund, free)
        free -= cost
        effects.append(effect)
    if deposit > 0:
        effects.append(Moved(user, deposit))
    accounts = {**after.accounts, user: free}
    held = after.escrow_held + deposit
    return Step(replace(after, accounts=accounts, escrow_held=held), tuple(effects))


def apply_open_intent(ledger: Ledger, intent: OpenIntent, signature: str, now_s: int) -> Step:
    """`apply_open` by a signed intent that anyone relays (the permit form).

    Refuses "deadline", "nonce", "signature" and what `apply_open` refuses.
    """
    expected = ledger.nonces.get(intent.user, 0)
    if now_s > intent.deadline:
        raise refuse("deadline", f"the intent was good until {intent.deadline}, it is {now_s}")
    if intent.nonce != expected:
        raise refuse("nonce", f"the intent has nonce {intent.nonce}, the next one is {expected}")
    digest = ledger.rules.domain.digest(intent.struct_hash())
    try:
        signer = recover_signer(digest, signature)
    except RequestError as error:
        raise refuse("signature", error.message) from None
    if signer != intent.user:
        raise refuse("signature", f"the intent is signed by {signer}, not by {intent.user}")
    used = apply_invalidate_intents(ledger, intent.user)
    step = apply_open(used.ledger, intent.user, intent.deposit, intent.funds)
    return Step(step.ledger, used.effects + step.effects)


def apply_invalidate_intents(ledger: Ledger, user: Address) -> Step:
    """Use up the user's next nonce, so that an intent signed with it cannot be relayed any more."""
    nonce = ledger.nonces.get(user, 0)
    after = replace(ledger, nonces={**ledger.nonces, user: nonce + 1})
    return Step(after, (Emitted("NonceUsed", {"user": user, "nonce": nonce}),))


def apply_request_refund(ledger: Ledger, key: SubAccountId, amount: int, now_s: int) -> Step:
    """Ask for more of a sub-account back; all that is pending waits the lock time from now.

    Refuses "amount", "balance".
    """
    balance, pending = _held_and_pending(ledger, key)
    if amount <= 0:
        raise refuse("amount", f"a refund of {amount} is not above 0")
    if amount > balance - pending:
        raise refuse("balance", f"{balance - pending} are not pending yet, {amount} are asked for")
    refund = PendingRefund(pending + amount, now_s + ledger.rules.lock_time_s)
    after = replace(ledger, refunds={**ledger.refunds, key: refund})
    fields = {"amount": amount, "refund": refund.amount, "unlock_time_s": refund.unlock_time_s}
    return Step(after, (_emitted("RefundRequested", key, fields),))


def apply_cancel_refund(ledger: Ledger, key: SubAccountId) -> Step:
    """Cancel all that is pending. Refuses "no refund"."""
    if ledger.refunds.get(key, NO_REFUND).amount == 0:
        raise refuse("no refund", f"no refund is pending for {key}")
    _, pending = _held_and_pending(ledger, key)
    after = replace(ledger, refunds={**ledger.refunds, key: NO_REFUND})
    return Step(after, (_emitted("RefundCancelled", key, {"amount": pending}),))


def apply_claim_refund(ledger: Ledger, key: SubAccountId, now_s: int) -> Step:
    """Complete a refund to the user's account; takes at most what is left.

    Refuses "no refund", "locked".
    """
    refund = ledger.refunds.get(key, NO_REFUND)
    if refund == NO_REFUND:
        raise refuse("no refund", f"no refund is pending for {key}")
    if now_s < refund.unlock_time_s:
        raise refuse("locked", f"the refund unlocks at {refund.unlock_time_s}, it is {now_s}")
    account = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT)
    moved = min(refund.amount, account.balance)
    after = replace(
        ledger,
        refunds={**ledger.refunds, key: NO_REFUND},
        sub_accounts={
            **ledger.sub_accounts,
            key: replace(account, balance=account.balance - moved),
        },
        accounts={**ledger.accounts, key.user: ledger.accounts.get(key.user, 0) + moved},
    )
    return Step(after, (_emitted("RefundClaimed", key, {"amount": moved}),))


def _fund(ledger: Ledger, user: Address, fund: Fund, free: int) -> tuple[Ledger, int, Emitted]:
    """The state without the account's own change, what the account owes, and the event."""
    if not 0 < fund.amount <= AMOUNT_MAX:
        raise refuse("amount", f"funds of {fund.amount} are outside 1 .. {AMOUNT_MAX}")
    if fund.signer == ZERO_ADDRESS:
        raise refuse("signer", "the signer is the zero address; name the key that signs vouchers")
    if not is_active(ledger, fund.provider):
        raise refuse("provider", f"the stake of {fund.provider} does not stand")
    key = SubAccountId(user, fund.provider, fund.signer)
    account = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT)
    _, pending = _held_and_pending(ledger, key)
    from_refund = min(pending, fund.amount)
    cost = fund.amount - from_refund
    if cost > free:
        raise refuse("balance", f"the account holds {free}, {cost} are needed")
    if account.balance + account.claimed + cost > AMOUNT_MAX:
        raise refuse("amount", f"the sub-account would pass {AMOUNT_MAX} over its life")
    left = pending - from_refund
    unlock = ledger.refunds.get(key, NO_REFUND).unlock_time_s
    after = replace(
        ledger,
        sub_accounts={
            **ledger.sub_accounts,
            key: replace(account, balance=account.balance + cost),
        },
        refunds={**ledger.refunds, key: PendingRefund(left, unlock) if left else NO_REFUND},
    )
    fields = {"amount": fund.amount, "from_refund": from_refund, "refund": left}
    return after, cost, _emitted("Funded", key, fields)


def _held_and_pending(ledger: Ledger, key: SubAccountId) -> tuple[int, int]:
    """A settlement can overtake a refund: what is pending is never more than what is held."""
    balance = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT).balance
    return balance, min(ledger.refunds.get(key, NO_REFUND).amount, balance)


def _emitted(name: str, key: SubAccountId, fields: dict[str, int]) -> Emitted:
    return Emitted(name, {**key._asdict(), **fields})
