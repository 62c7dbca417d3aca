"""`Escrow.settle`: each claim of a settlement batch judged apart, in one fixed order.

Source: `Escrow.vy`; docs/decisions/0004-escrow-storage-and-claims.md, section "Claims".
"""

from collections.abc import Sequence
from dataclasses import replace

from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.refusals import refuse
from hanse.protocol.ledger.registry import find_payee
from hanse.protocol.ledger.state import (
    NO_SUB_ACCOUNT,
    ClaimStatus,
    Effect,
    Emitted,
    Judgement,
    Ledger,
    Moved,
    Rules,
    Step,
    SubAccount,
    SubAccountId,
    VoucherClaim,
)
from hanse.protocol.limits import CLAIMS_PER_SETTLEMENT_MAX
from hanse.protocol.messages import Voucher
from hanse.protocol.signatures import Address, Hash32, recover_signer

_S_MASK = 2**255 - 1


def apply_settle(
    ledger: Ledger,
    caller: Address,
    provider: Address,
    claims: Sequence[VoucherClaim],
    records_head: Hash32,
) -> Step:
    """Pay a provider what vouchers allow; one transfer to its payee, one event with every result.

    The event's `results` are `Judgement`s here; on chain they are packed words.

    Refuses "no claims", "not permitted"; "" for more claims than one settlement batch holds.
    """
    if len(claims) > CLAIMS_PER_SETTLEMENT_MAX:
        raise refuse("", f"{len(claims)} claims, at most {CLAIMS_PER_SETTLEMENT_MAX} at once")
    if not claims:
        raise refuse("no claims", "0 claims, at least 1 is needed")
    payee = find_payee(ledger, provider, caller)
    if payee is None:
        raise refuse("not permitted", f"{caller} is no key of {provider}")
    sub_accounts = dict(ledger.sub_accounts)
    results = []
    for claim in claims:
        key = SubAccountId(claim.user, provider, claim.signer)
        before = sub_accounts.get(key, NO_SUB_ACCOUNT)
        status = judge_claim(ledger.rules, before, claim, provider)
        after = pay_claim(before, claim) if status >= ClaimStatus.PARTIAL else before
        if after != before:
            sub_accounts[key] = after
        results.append(Judgement(key, status, after.sequence, after.claimed - before.claimed))
    paid = sum(result.paid for result in results)
    fields = {
        "provider": provider,
        "payee": payee,
        "records_head": records_head,
        "paid": paid,
        "results": tuple(results),
    }
    effects: list[Effect] = [Emitted("Settled", fields)]
    if paid:
        effects.append(Moved(payee, -paid))
    held = ledger.escrow_held - paid
    return Step(replace(ledger, sub_accounts=sub_accounts, escrow_held=held), tuple(effects))


def judge_claim(
    rules: Rules, account: SubAccount, claim: VoucherClaim, provider: Address
) -> ClaimStatus:
    """The first of the six statuses that fits, in their order."""
    if account == NO_SUB_ACCOUNT:
        return ClaimStatus.UNKNOWN_SUB_ACCOUNT
    voucher = Voucher(
        claim.user, provider, claim.cumulative_max, claim.sequence_max, claim.request_hash
    )
    if not _is_signed(rules.domain.digest(voucher.struct_hash()), claim):
        return ClaimStatus.BAD_SIGNATURE
    if claim.claimed > claim.cumulative_max or claim.sequence > claim.sequence_max:
        return ClaimStatus.OVER_VOUCHER
    if claim.claimed <= account.claimed or claim.sequence < account.sequence:
        return ClaimStatus.NOTHING_NEW
    if claim.claimed - account.claimed > account.balance:
        return ClaimStatus.PARTIAL
    return ClaimStatus.PAID


def pay_claim(account: SubAccount, claim: VoucherClaim) -> SubAccount:
    """Move what is owed, or all that is held if that is less; the sequence is the claim's."""
    paid = min(claim.claimed - account.claimed, account.balance)
    return SubAccount(account.balance - paid, account.claimed + paid, claim.sequence)


def _is_signed(digest: bytes, claim: VoucherClaim) -> bool:
    packed = int.from_bytes(claim.vs, "big")
    tail = (packed & _S_MASK).to_bytes(32, "big") + bytes((27 + (packed >> 255),))
    try:
        return recover_signer(digest, "0x" + (claim.r + tail).hex()) == claim.signer
    except RequestError:
        return False
