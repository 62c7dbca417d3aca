"""Disputes: a provider proven wrong by its own receipts, its stake slashed, its victims paid back.

    step = apply_prove_overclaim(ledger, reporter, signed_receipt, now_s)

A call that does not refuse is a proof that the contract accepts: so a client asks the ledger first
and spends no gas on a false accusation. `find_cheats` says who could be accused, from all receipts
that were ever signed; it is written apart from the proofs, so that each can be held to the other.

Source: `Escrow.vy` and `Registry.vy`; docs/decisions/0012-disputes-and-slashing.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.state import (
    NO_PROVIDER,
    NO_SUB_ACCOUNT,
    Effect,
    Emitted,
    Ledger,
    PaidOver,
    Step,
    SubAccount,
    SubAccountId,
)
from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.signatures import ZERO_ADDRESS, Address, recover_signer


def apply_prove_overclaim(
    ledger: Ledger, reporter: Address, signed: SignedReceipt, now_s: int
) -> Step:
    """Show that more was claimed than served, up to a sequence that the claim covers.

    Refuses "signature", "unknown", "no overclaim", and "stake", "window", "compensated".
    """
    receipt = signed.receipt
    check_signature(ledger, signed)
    key, account = _get_sub_account(ledger, receipt)
    if receipt.sequence < account.sequence:
        raise refuse(
            "no overclaim",
            f"the receipt ends at sequence {receipt.sequence}, the claim at {account.sequence}",
        )
    if receipt.cumulative_fee >= account.claimed:
        raise refuse(
            "no overclaim",
            f"{account.claimed} are claimed, the receipt shows {receipt.cumulative_fee}",
        )
    loss = account.claimed - receipt.cumulative_fee
    after, compensation, effects = _compensate(ledger, key, loss, now_s)
    fields = {
        **key._asdict(),
        "sequence": receipt.sequence,
        "claimed": account.claimed,
        "cumulative_fee": receipt.cumulative_fee,
        "loss": loss,
        "compensation": compensation,
        "reporter": reporter,
    }
    return Step(after, (*effects, Emitted("OverclaimProven", fields)))


def apply_prove_equivocation(
    ledger: Ledger, reporter: Address, first: SignedReceipt, second: SignedReceipt, now_s: int
) -> Step:
    """Show two receipts for one sequence that differ, in whatever field.

    Refuses "no equivocation", "signature", "unknown", and "stake", "window", "compensated".
    """
    places = [_get_place(signed.receipt) for signed in (first, second)]
    if places[0] != places[1]:
        raise refuse("no equivocation", f"one receipt is for {places[0]}, one for {places[1]}")
    if first.receipt == second.receipt:
        raise refuse("no equivocation", f"both are the same receipt for {places[0]}")
    for signed in (first, second):
        check_signature(ledger, signed)
    key, account = _get_sub_account(ledger, first.receipt)
    covered = [min(account.claimed, s.receipt.cumulative_fee) for s in (first, second)]
    loss = max(covered) - min(covered)
    after, compensation, effects = _compensate(ledger, key, loss, now_s)
    fields = {
        **key._asdict(),
        "sequence": first.receipt.sequence,
        "loss": loss,
        "compensation": compensation,
        "reporter": reporter,
    }
    return Step(after, (*effects, Emitted("EquivocationProven", fields)))


def apply_burn_rest(ledger: Ledger, provider: Address, now_s: int) -> Step:
    """Burn what victims left when the window is over.

    Refuses "not condemned", "locked", "stake".
    """
    entry = ledger.providers.get(provider, NO_PROVIDER)
    if not entry.condemned_until_s:
        raise refuse("not condemned", f"nothing was proven against {provider}")
    if now_s < entry.condemned_until_s:
        raise refuse("locked", f"victims are paid until {entry.condemned_until_s}, it is {now_s}")
    if entry.pool == 0:
        raise refuse("stake", f"nothing is left of the stake of {provider}")
    after = replace(
        ledger,
        providers={**ledger.providers, provider: replace(entry, pool=0)},
        burned=ledger.burned + entry.pool,
    )
    effect = Emitted("RestBurned", {"provider": provider, "amount": entry.pool})
    return Step(after, (effect,))


def find_cheats(
    ledger: Ledger, receipts: Mapping[SubAccountId, Sequence[Receipt]]
) -> frozenset[Address]:
    """Providers that broke a rule of honesty in what they signed or hold as claimed.

    The rules, for each sub-account: one receipt a sequence; sums that never fall with the sequence;
    nothing claimed above the sum at the claimed sequence, or at the next one that has a receipt.

    Args:
        ledger: the state.
        receipts: every receipt that the providers ever signed.
    """
    cheats = set()
    for key, signed in receipts.items():
        account = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT)
        by_sequence = sorted(set(signed), key=lambda receipt: receipt.sequence)
        sequences = [receipt.sequence for receipt in by_sequence]
        sums = [receipt.cumulative_fee for receipt in by_sequence]
        covering = [r.cumulative_fee for r in by_sequence if r.sequence >= account.sequence]
        if (
            len(set(sequences)) < len(sequences)
            or sums != sorted(sums)
            or (covering and account.claimed > covering[0])
        ):
            cheats.add(key.provider)
    return frozenset(cheats)


def _compensate(
    ledger: Ledger, key: SubAccountId, loss: int, now_s: int
) -> tuple[Ledger, int, tuple[Effect, ...]]:
    """Pay what is still due of a loss. The highest loss counts, as several proofs' overlap."""
    before = ledger.compensations.get(key, 0)
    slashed, paid, effects = slash(ledger, key.provider, max(0, loss - before), now_s)
    if not paid:
        return slashed, 0, effects
    free = ledger.accounts.get(key.user, 0)
    after = replace(
        slashed,
        accounts={**ledger.accounts, key.user: free + paid},
        compensations={**ledger.compensations, key: before + paid},
        escrow_held=ledger.escrow_held + paid,
    )
    return after, paid, effects


def slash(
    ledger: Ledger, provider: Address, due: int, now_s: int, receiver: str = "Escrow"
) -> tuple[Ledger, int, tuple[Effect, ...]]:
    """Condemn if that is new, and pay from the pool; the stake of a new one is halved first.

    Args:
        ledger: the state.
        provider: whose stake answers.
        due: base units; 0 only condemns.
        now_s: the block's time.
        receiver: which contract slashes, and so is paid.
    """
    entry = ledger.providers[provider]
    effects: list[Effect] = []
    burned = 0
    if not entry.condemned_until_s:
        if entry.stake == 0:
            raise refuse("stake", f"{provider} has no stake to answer with")
        burned = entry.stake - entry.stake // 2
        until_s = now_s + ledger.rules.dispute_window_s
        pool = entry.stake - burned
        fields = {"stake": entry.stake, "burned": burned, "pool": pool, "until_s": until_s}
        effects.append(Emitted("Condemned", {"provider": provider, **fields}))
        entry = replace(entry, stake=0, unbonding_until_s=0, pool=pool, condemned_until_s=until_s)
    elif now_s >= entry.condemned_until_s:
        raise refuse("window", f"victims were paid until {entry.condemned_until_s}, it is {now_s}")
    elif due == 0:
        raise refuse("compensated", "the loss was paid back before")
    elif entry.pool == 0:
        raise refuse("stake", f"nothing is left of the stake of {provider}")
    paid = min(due, entry.pool)
    entry = replace(entry, pool=entry.pool - paid)
    if paid:
        slashed = {"provider": provider, "amount": paid, "pool": entry.pool}
        effects += [Emitted("Slashed", slashed), PaidOver(paid, receiver)]
    after = replace(
        ledger,
        providers={**ledger.providers, provider: entry},
        burned=ledger.burned + burned,
        registry_held=ledger.registry_held - paid,
    )
    return after, paid, tuple(effects)


def _get_sub_account(ledger: Ledger, receipt: Receipt) -> tuple[SubAccountId, SubAccount]:
    key = SubAccountId(receipt.user, receipt.provider, receipt.signer)
    account = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT)
    if account == NO_SUB_ACCOUNT:
        raise refuse("unknown", f"nothing was ever set aside in {key}")
    return key, account


def _get_place(receipt: Receipt) -> tuple[Address, Address, Address, int]:
    return receipt.user, receipt.provider, receipt.signer, receipt.sequence


def check_signature(ledger: Ledger, signed: SignedReceipt) -> None:
    """Refuse "signature" unless a key that is or ever was the provider's signed the receipt."""
    digest = ledger.rules.domain.digest(signed.receipt.struct_hash())
    try:
        receipt_key = recover_signer(digest, signed.signature)
    except RequestError as error:
        raise refuse("signature", error.message) from None
    holder = ledger.receipt_keys.get(receipt_key, ZERO_ADDRESS)
    if holder == ZERO_ADDRESS or holder != signed.receipt.provider:
        raise refuse(
            "signature", f"signed by {receipt_key}, which is no key of {signed.receipt.provider}"
        )
