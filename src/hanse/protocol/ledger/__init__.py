"""The reference ledger: the contracts' rules as pure functions over an explicit, frozen state.

    step = apply_deposit(ledger, user, 1_000_000)
    step.ledger, step.effects

It is the specification in code: a stateful test runs the contracts beside it and
compares state, events, refusals and transfers after every step, and checks the `invariants`. It is
also how the rest of Hanse can ask "what would the contract do" without a chain.

state        what is stored, effects, statuses      settlement   settle
accounts     deposit, withdraw, fund, open, refund  registry     stakes, keys, services
disputes     proofs, slashing, who can be proven    records      heads of the recorders
refusals     revert reasons and their error codes   invariants   what must always hold
"""

from hanse.protocol.ledger.accounts import (
    apply_cancel_refund,
    apply_claim_refund,
    apply_deposit,
    apply_fund,
    apply_invalidate_intents,
    apply_open,
    apply_open_intent,
    apply_request_refund,
    apply_withdraw,
)
from hanse.protocol.ledger.disputes import (
    apply_burn_rest,
    apply_prove_equivocation,
    apply_prove_overclaim,
    find_cheats,
)
from hanse.protocol.ledger.records import apply_commit
from hanse.protocol.ledger.refusals import REVERT_REASONS, refuse
from hanse.protocol.ledger.registry import (
    apply_add_stake,
    apply_announce_payee,
    apply_announce_receipt_key,
    apply_begin_unbonding,
    apply_cancel_unbonding,
    apply_complete_payee,
    apply_complete_receipt_key,
    apply_finish_unbonding,
    apply_publish_service,
    apply_register,
    apply_retire_service,
    find_payee,
    is_active,
)
from hanse.protocol.ledger.settlement import apply_settle, judge_claim
from hanse.protocol.ledger.state import (
    ClaimStatus,
    Effect,
    Emitted,
    Judgement,
    Ledger,
    Moved,
    PaidOver,
    PendingRefund,
    Provider,
    RecordsHead,
    Rules,
    Service,
    Step,
    SubAccount,
    SubAccountId,
    VoucherClaim,
)

__all__ = [
    "Ledger",
    "Rules",
    "SubAccountId",
    "SubAccount",
    "PendingRefund",
    "Provider",
    "Service",
    "VoucherClaim",
    "ClaimStatus",
    "Judgement",
    "Step",
    "Effect",
    "Emitted",
    "Moved",
    "PaidOver",
    "RecordsHead",
    "apply_deposit",
    "apply_withdraw",
    "apply_fund",
    "apply_open",
    "apply_open_intent",
    "apply_invalidate_intents",
    "apply_request_refund",
    "apply_cancel_refund",
    "apply_claim_refund",
    "apply_settle",
    "judge_claim",
    "apply_register",
    "apply_add_stake",
    "apply_begin_unbonding",
    "apply_cancel_unbonding",
    "apply_finish_unbonding",
    "apply_announce_receipt_key",
    "apply_complete_receipt_key",
    "apply_announce_payee",
    "apply_complete_payee",
    "apply_publish_service",
    "apply_retire_service",
    "find_payee",
    "is_active",
    "apply_prove_overclaim",
    "apply_prove_equivocation",
    "apply_burn_rest",
    "find_cheats",
    "apply_commit",
    "REVERT_REASONS",
    "refuse",
]
