"""What must hold after every step, by the names that the contracts' NatSpec and the tests use.

Each check returns nothing or raises `InvariantError`, naming the two values that disagree. Some
look at one state, some at two neighbours; the two about leaving play it through on the ledger.
`dispute_invariants` has those about slashing and records.

Source: `docs/protocol.md`, section "Contracts", "Invariants".
"""

from collections.abc import Mapping, Sequence

from hanse.protocol.errors import InvariantError
from hanse.protocol.ledger.accounts import (
    apply_claim_refund,
    apply_request_refund,
    apply_withdraw,
)
from hanse.protocol.ledger.settlement import apply_settle
from hanse.protocol.ledger.state import (
    NO_REFUND,
    NO_SUB_ACCOUNT,
    Ledger,
    SubAccountId,
    VoucherClaim,
)
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.signatures import ZERO_HASH, Address


def asset_held_equals_books(ledger: Ledger) -> None:
    """Escrow holds accounts + sub-accounts (pending refunds included), Registry what was staked.

    That is stakes, the pools of the condemned, and what was burned, which stays there.
    """
    users = sum(ledger.accounts.values())
    set_aside = sum(account.balance for account in ledger.sub_accounts.values())
    require_equal(
        "Escrow's asset", ledger.escrow_held, "accounts + sub-accounts", users + set_aside
    )
    staked = get_staked(ledger)
    require_equal("Registry's asset", ledger.registry_held, "stakes + pools + burned", staked)


def no_balance_is_negative(ledger: Ledger) -> None:
    """And no sub-account's balance + claimed leaves its 96 bits."""
    for user, free in ledger.accounts.items():
        require(free >= 0, f"account of {user} holds {free}, below 0")
    for key, account in ledger.sub_accounts.items():
        fits = account.balance >= 0 and account.claimed >= 0
        total = account.balance + account.claimed
        require(fits and total <= AMOUNT_MAX, f"{account} of {key} is outside 0 .. {AMOUNT_MAX}")
    for owner, provider in ledger.providers.items():
        fits = provider.stake >= 0 and provider.pool >= 0
        require(fits, f"{owner}: stake {provider.stake} or pool {provider.pool} is below 0")


def claimed_within_highest_voucher(
    ledger: Ledger, highest_signed: Mapping[SubAccountId, int]
) -> None:
    """`claimed` is at most the highest cumulative max that the sub-account's signer ever signed."""
    for key, account in ledger.sub_accounts.items():
        signed = highest_signed.get(key, 0)
        require(account.claimed <= signed, f"{key}: claimed {account.claimed}, signed {signed}")


def claimed_and_sequence_never_fall(before: Ledger, after: Ledger) -> None:
    """Also after a refund, and after new funds."""
    for key, old in before.sub_accounts.items():
        new = after.sub_accounts.get(key, NO_SUB_ACCOUNT)
        falls = new.claimed < old.claimed or new.sequence < old.sequence
        require(not falls, f"{key}: {old} became {new}")


def only_the_signer_raises_what_is_owed(
    before: Ledger, after: Ledger, vouchers: Sequence[VoucherClaim], provider: Address | None
) -> None:
    """`claimed` rises only in a settlement batch of `provider`, up to a voucher in it.

    Args:
        before: the state before the step.
        after: the state after it.
        vouchers: the step's claims that carry the named signer's own signature; () for other steps.
        provider: whose settlement batch the step was; None for other steps.
    """
    for key, new in after.sub_accounts.items():
        old = before.sub_accounts.get(key, NO_SUB_ACCOUNT)
        if new.claimed > old.claimed:
            signed = max(
                (
                    v.cumulative_max
                    for v in vouchers
                    if (v.user, v.signer) == (key.user, key.signer)
                ),
                default=0,
            )
            allowed = key.provider == provider and new.claimed <= signed
            require(allowed, f"{key}: claimed rose to {new.claimed}, signed {signed}")


def no_admin_key_moves_funds(before: Ledger, after: Ledger, actor: Address) -> None:
    """What is a user's falls only by its own withdrawal, or by what its providers were paid.

    A stake falls only after its owner's announcement; see `stake_leaves_only_after_unbonding`.
    """
    users = {*before.accounts, *(key.user for key in before.sub_accounts)}
    for user in users:
        fell = _belongs_to(before, user) - _belongs_to(after, user)
        paid = _claimed_from(after, user) - _claimed_from(before, user)
        require(fell <= paid or actor == user, f"{actor} took {fell} of {user}, {paid} was signed")


def stake_leaves_only_after_unbonding(before: Ledger, after: Ledger, now_s: int) -> None:
    """A stake falls only whole, when the time that its owner announced has passed or by a proof."""
    for owner, old in before.providers.items():
        new = after.providers[owner]
        due = 0 < old.unbonding_until_s <= now_s or new.condemned_until_s > old.condemned_until_s
        require(
            new.stake >= old.stake or (due and new.stake == 0),
            f"{owner}: {old} became {new} at {now_s}",
        )


def receipt_key_belongs_to_one_provider(before: Ledger, after: Ledger) -> None:
    """No receipt key ever changes hands, and every present one is on the list."""
    for key, provider in before.receipt_keys.items():
        require_equal(f"holder of {key}", after.receipt_keys.get(key), "before", provider)
    for owner, entry in after.providers.items():
        require_equal(
            "receipt key's holder", after.receipt_keys.get(entry.receipt_key), "owner", owner
        )


def user_can_exit_within_lock_time(ledger: Ledger, user: Address, now_s: int) -> None:
    """With every other party gone: ask for all, wait the lock time, complete, withdraw."""
    due = _belongs_to(ledger, user)
    if due == 0:
        return
    later_s = now_s + ledger.rules.lock_time_s
    for key in [key for key in ledger.sub_accounts if key.user == user]:
        balance = ledger.sub_accounts[key].balance
        pending = min(ledger.refunds.get(key, NO_REFUND).amount, balance)
        if balance > pending:
            ledger = apply_request_refund(ledger, key, balance - pending, now_s).ledger
        if balance:
            ledger = apply_claim_refund(ledger, key, later_s).ledger
    ledger = apply_withdraw(ledger, user, due).ledger
    require_equal(f"left of {user}", _belongs_to(ledger, user), "nothing", 0)


def provider_can_claim_what_was_signed(
    ledger: Ledger, provider: Address, vouchers: Sequence[VoucherClaim]
) -> None:
    """With every user gone: each sub-account's best voucher brings what it owes or what is held.

    Args:
        ledger: the state.
        provider: who claims, with its own key.
        vouchers: the highest valid voucher of each of its sub-accounts, claimed in full.
    """
    if provider not in ledger.providers or not vouchers:
        return
    expected = 0
    for voucher in vouchers:
        key = SubAccountId(voucher.user, provider, voucher.signer)
        account = ledger.sub_accounts.get(key, NO_SUB_ACCOUNT)
        owed = max(0, voucher.cumulative_max - account.claimed)
        expected += min(owed, account.balance) if voucher.sequence >= account.sequence else 0
    held = ledger.escrow_held
    after = apply_settle(ledger, provider, provider, vouchers, ZERO_HASH).ledger
    require_equal(f"paid to {provider}", held - after.escrow_held, "signed and held", expected)


def get_staked(ledger: Ledger) -> int:
    """Base units of all stakes that are still in Registry, in whatever part."""
    entries = ledger.providers.values()
    return sum(entry.stake + entry.pool for entry in entries) + ledger.burned


def _belongs_to(ledger: Ledger, user: Address) -> int:
    set_aside = sum(a.balance for key, a in ledger.sub_accounts.items() if key.user == user)
    return ledger.accounts.get(user, 0) + set_aside


def _claimed_from(ledger: Ledger, user: Address) -> int:
    return sum(a.claimed for key, a in ledger.sub_accounts.items() if key.user == user)


def require_equal(what: str, actual: object, other: str, expected: object) -> None:
    """Raise unless both are the same."""
    require(actual == expected, f"{what} is {actual}, {other} is {expected}")


def require(holds: bool, message: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise InvariantError("invariant_broken", message)
