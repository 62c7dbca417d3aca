"""The contracts beside the reference ledger, in any order of calls: same state, events, refusals.

Every step runs on both. A refusal must have the same reason, a success the same events and
transfers; then all of the state is compared and every named invariant is checked.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import hanse.contracts
from hanse.contracts.claims import Claim, get_sub_account_key
from hanse.contracts.deployment import Terms
from hanse.protocol import ledger as rules
from hanse.protocol.errors import ERROR_TABLE, RequestError
from hanse.protocol.intents import Fund, OpenIntent
from hanse.protocol.ledger import (
    Emitted,
    Judgement,
    Ledger,
    Moved,
    PaidOver,
    Step,
    SubAccountId,
    VoucherClaim,
)
from hanse.protocol.ledger import dispute_invariants as of_disputes
from hanse.protocol.ledger import invariants as named
from hanse.protocol.messages import Prices, Voucher
from hanse.protocol.signatures import to_bytes, to_compact
from tests.contracts.dispute_rules import HONEST, HONEST_KEY, DisputeRules
from tests.contracts.local_evm import Hanse, Key, deploy_hanse, key_of, reverts

USERS = [key_of(f"user {number}") for number in range(2)]
PROVIDERS = [key_of(f"provider {number}") for number in range(2)]
ALL_PROVIDERS = [*PROVIDERS, HONEST]
SIGNERS = [USERS[0], key_of("session key")]
RECEIPT_KEYS = [key_of(f"receipt key {number}") for number in range(3)]
CALLERS = [*PROVIDERS, *RECEIPT_KEYS, USERS[0]]
WALLET = 2**100
REQUEST_HASH = "0x" + "ab" * 32

users = st.sampled_from(USERS)
providers = st.sampled_from(PROVIDERS)
# Those that others deal with; what the honest one does itself stands in DisputeRules.
all_providers = st.sampled_from(ALL_PROVIDERS)
signers = st.sampled_from(SIGNERS)
receipt_keys = st.sampled_from(RECEIPT_KEYS)
callers = st.sampled_from(CALLERS)
# So small that a pool can run dry before all victims are paid.
TERMS = Terms(minimum_stake=1_000)
stakes = st.sampled_from([1, 999, 1_000, 1_001, 2**96])
# How much of what is there: most steps should be near a boundary, on either side of it.
shares = st.sampled_from(["none", "one", "some", "some", "half", "all", "more", "huge", "beyond"])
claims_made = st.lists(
    st.fixed_dictionaries(
        {
            "user": users,
            "signer": signers,
            # the voucher, and the claim against it
            "raise_by": st.sampled_from(["none", "one", "some", "half", "all", "more"]),
            "over": st.sampled_from([0, 0, 0, 0, -1, 1]),
            "sequence_by": st.sampled_from([1, 1, 1, 0, 3, -1]),
            "ahead": st.sampled_from([0, 0, 0, 0, -1, 1]),
            "forged": st.sampled_from([False] * 7 + [True]),
        }
    ),
    min_size=1,
    max_size=4,
)


def share_of(total: int, share: str) -> int:
    return {
        "none": 0,
        "one": 1,
        "some": min(total, 137),
        "half": total // 2,
        "all": total,
        "more": total + 1,
        "huge": 2**96 - 1,
        "beyond": 2**96,
    }[share]


class ContractsBesideLedger(DisputeRules, RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.hanse: Hanse = deploy_hanse(TERMS)
        terms = self.hanse.terms
        self.ledger = Ledger(
            rules.Rules(
                domain=self.hanse.domain,
                lock_time_s=terms.lock_time_s,
                minimum_stake=terms.minimum_stake,
                dispute_window_s=terms.dispute_window_s,
                unbonding_time_s=terms.unbonding_time_s,
                key_delay_s=terms.key_delay_s,
            )
        )
        self.before = self.ledger
        self.actor: Key = USERS[0]
        self.settled: tuple[list[VoucherClaim], str | None] = ([], None)
        self.signed: dict[SubAccountId, list[VoucherClaim]] = {}
        for key in (*USERS, *ALL_PROVIDERS):
            self.hanse.mint(key.address, WALLET)
            self.hanse.mint(key.address, WALLET, self.hanse.registry)
        # Every run should get past the start: a provider is there, and users have money.
        self.register(PROVIDERS[0], 1_000, RECEIPT_KEYS[0])
        self.register(HONEST, 1_001, HONEST_KEY)
        for user in USERS:
            for provider in (PROVIDERS[0], HONEST):
                self.open(user, 5_000, [(provider, signer, 1_000) for signer in SIGNERS])

    # -------------------------------------------------------------- rules

    @rule(back_s=st.sampled_from([0, 0, 1]), seconds=st.sampled_from([0, 0, 0, 1, 3_600]))
    def advance(self, back_s: int, seconds: int) -> None:
        """To the next time at which something unlocks, a second before it, or by so much."""
        now_s = self.hanse.chain.now_s
        due = [
            time_s
            for refund in self.ledger.refunds.values()
            for time_s in (refund.unlock_time_s,)
            if time_s > now_s
        ]
        for entry in self.ledger.providers.values():
            times = (
                entry.unbonding_until_s,
                entry.next_receipt_key_from_s,
                entry.next_payee_from_s,
                entry.condemned_until_s,
            )
            due += [time_s for time_s in times if time_s > now_s]
        step_s = min(due) - now_s - back_s if due and not seconds else seconds
        self.hanse.chain.advance(step_s)
        self.before, self.effects = self.ledger, ()
        self.settled = ([], None)

    @rule(user=users, share=shares)
    def deposit(self, user: Key, share: str) -> None:
        amount = share_of(5_000, share)
        self.both(
            user, lambda: rules.apply_deposit(self.ledger, user.address, amount), "deposit", amount
        )

    @rule(user=users, share=shares)
    def withdraw(self, user: Key, share: str) -> None:
        amount = share_of(self.ledger.accounts.get(user.address, 0), share)
        self.both(
            user,
            lambda: rules.apply_withdraw(self.ledger, user.address, amount),
            "withdraw",
            amount,
        )

    @rule(user=users, provider=all_providers, signer=signers, share=shares, pending=st.booleans())
    def fund(self, user: Key, provider: Key, signer: Key, share: str, pending: bool) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        refund = self.ledger.refunds.get(key, rules.PendingRefund()).amount
        amount = share_of(self.ledger.accounts.get(user.address, 0) + pending * refund, share)
        fund = Fund(provider.address, signer.address, amount)
        arguments = (provider.address, signer.address, amount)
        self.both(
            user, lambda: rules.apply_fund(self.ledger, user.address, fund), "fund", *arguments
        )

    @rule(
        user=users,
        amount=st.sampled_from([0, 500, 2**96]),
        parts=st.lists(st.tuples(providers, signers, st.integers(0, 2_000)), max_size=3),
    )
    def open(self, user: Key, amount: int, parts: list[tuple[Key, Key, int]]) -> None:
        funds = [Fund(provider.address, signer.address, part) for provider, signer, part in parts]
        self.both(
            user,
            lambda: rules.apply_open(self.ledger, user.address, amount, funds),
            "open",
            amount,
            [(fund.provider, fund.signer, fund.amount) for fund in funds],
        )

    @rule(
        user=users,
        amount=st.integers(0, 2_000),
        part=st.tuples(providers, signers, st.integers(1, 2_000)),
        wrong=st.sampled_from(["", "", "", "nonce", "deadline", "signature"]),
    )
    def open_relayed(self, user: Key, amount: int, part: tuple[Key, Key, int], wrong: str) -> None:
        now_s = self.hanse.chain.now_s
        nonce = self.ledger.nonces.get(user.address, 0) + (wrong == "nonce")
        deadline = now_s - (wrong == "deadline")
        fund = Fund(part[0].address, part[1].address, part[2])
        intent = OpenIntent(user.address, amount, (fund,), nonce, deadline)
        author = RECEIPT_KEYS[2] if wrong == "signature" else user
        signature = author.sign(self.hanse.domain.digest(intent.struct_hash()))
        r, vs = to_compact(signature)
        self.both(
            user,
            lambda: rules.apply_open_intent(self.ledger, intent, signature, now_s),
            "open_relayed_with_permit",
            user.address,
            amount,
            [(fund.provider, fund.signer, fund.amount)],
            nonce,
            deadline,
            r,
            int.from_bytes(vs, "big"),
            *(0, 27, bytes(32), bytes(32)),  # the wallet approved earlier; the permit may fail
            caller=key_of("relayer"),
        )

    @rule(
        user=users,
        provider=providers,
        signer=signers,
        acts=st.lists(
            st.tuples(
                st.sampled_from(["refund", "settle", "fund", "wait", "complete"]),
                st.sampled_from(["one", "some", "half", "all"]),
            ),
            min_size=3,
            max_size=6,
        ),
    )
    def keep_at_one_sub_account(
        self, user: Key, provider: Key, signer: Key, acts: list[tuple[str, str]]
    ) -> None:
        """What refunds, claims and funds do to one another shows only where they meet."""
        voucher = {"over": 0, "sequence_by": 1, "ahead": 0, "forged": False}
        for act, share in acts:
            if act == "refund":
                self.request_refund(user, provider, signer, share)
            elif act == "settle":
                made = {"user": user, "signer": signer, "raise_by": share, **voucher}
                self.settle(provider, provider, [made])
            elif act == "fund":
                self.fund(user, provider, signer, share, True)
            elif act == "complete":
                self.claim_refund(provider, user, provider, signer)
            else:
                self.advance(0, 0 if share == "all" else 3_600)
            self.state_is_the_same()
            self.named_invariants_hold()

    @rule(
        provider=providers,
        early_s=st.sampled_from([0, 0, 1]),
        made=claims_made,
        comes_back=st.booleans(),
    )
    def leave_and_settle(
        self, provider: Key, early_s: int, made: list[dict[str, Any]], comes_back: bool
    ) -> None:
        """The whole way out; what was signed is claimed when the stake is gone."""
        self.begin_unbonding(provider)
        self.hanse.chain.advance(self.hanse.terms.unbonding_time_s - early_s)
        self.finish_unbonding(USERS[0], provider)
        self.named_invariants_hold()
        self.settle(provider, provider, made)
        self.named_invariants_hold()
        if comes_back:
            self.add_stake(provider, 1_000)

    @rule(user=users)
    def invalidate_intents(self, user: Key) -> None:
        self.both(
            user,
            lambda: rules.apply_invalidate_intents(self.ledger, user.address),
            "invalidate_intents",
        )

    @rule(user=users, provider=all_providers, signer=signers, share=shares)
    def request_refund(self, user: Key, provider: Key, signer: Key, share: str) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        balance = self.ledger.sub_accounts.get(key, rules.SubAccount()).balance
        pending = min(self.ledger.refunds.get(key, rules.PendingRefund()).amount, balance)
        amount = share_of(balance - pending, share)
        self.both(
            user,
            lambda: rules.apply_request_refund(self.ledger, key, amount, self.hanse.chain.now_s),
            "request_refund",
            provider.address,
            signer.address,
            amount,
        )

    @rule(user=users, provider=all_providers, signer=signers)
    def cancel_refund(self, user: Key, provider: Key, signer: Key) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        self.both(
            user, lambda: rules.apply_cancel_refund(self.ledger, key), "cancel_refund", *key[1:]
        )

    @rule(caller=callers, user=users, provider=all_providers, signer=signers)
    def claim_refund(self, caller: Key, user: Key, provider: Key, signer: Key) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        self.both(
            caller,
            lambda: rules.apply_claim_refund(self.ledger, key, self.hanse.chain.now_s),
            "claim_refund",
            *key,
        )

    @rule(caller=callers, provider=providers, made=claims_made)
    def settle_by_anyone(self, caller: Key, provider: Key, made: list[dict[str, Any]]) -> None:
        self.settle(caller, provider, made)

    @rule(provider=providers, made=claims_made)
    def settle_own(self, provider: Key, made: list[dict[str, Any]]) -> None:
        self.settle(provider, provider, made)

    @rule(provider=providers, made=claims_made)
    def settle_own_again(self, provider: Key, made: list[dict[str, Any]]) -> None:
        """The same again: rules are drawn evenly, and settling matters most."""
        self.settle(provider, provider, made)

    def settle(self, caller: Key, provider: Key, made: list[dict[str, Any]]) -> None:
        claims = [self.sign_claim(provider, **one) for one in made]
        honest = [claim for claim, one in zip(claims, made, strict=True) if not one["forged"]]
        self.settle_claims(caller, provider, claims, honest)

    def settle_claims(
        self,
        caller: Key,
        provider: Key,
        claims: list[VoucherClaim],
        honest: list[VoucherClaim],
    ) -> None:
        rows = [
            Claim(
                claim.user,
                claim.signer,
                claim.cumulative_max,
                claim.claimed,
                claim.sequence,
                claim.sequence_max,
                to_bytes(claim.request_hash),
                claim.r,
                claim.vs,
            ).to_abi()
            for claim in claims
        ]
        head = "0x" + "5a" * 32
        self.both(
            caller,
            lambda: rules.apply_settle(self.ledger, caller.address, provider.address, claims, head),
            "settle",
            provider.address,
            rows,
            to_bytes(head),
            settled=(honest, provider.address),
        )

    @rule(provider=providers, stake=stakes, receipt_key=receipt_keys)
    def register(self, provider: Key, stake: int, receipt_key: Key) -> None:
        owner, payee = provider.address, key_of("payee").address
        self.both(
            provider,
            lambda: rules.apply_register(self.ledger, owner, stake, receipt_key.address, payee),
            "register",
            stake,
            receipt_key.address,
            payee,
        )

    @rule(provider=providers, amount=stakes)
    def add_stake(self, provider: Key, amount: int) -> None:
        owner = provider.address
        self.both(
            provider, lambda: rules.apply_add_stake(self.ledger, owner, amount), "add_stake", amount
        )

    @rule(provider=providers)
    def begin_unbonding(self, provider: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            provider,
            lambda: rules.apply_begin_unbonding(self.ledger, owner, now_s),
            "begin_unbonding",
        )

    @rule(provider=providers)
    def cancel_unbonding(self, provider: Key) -> None:
        owner = provider.address
        self.both(
            provider, lambda: rules.apply_cancel_unbonding(self.ledger, owner), "cancel_unbonding"
        )

    @rule(caller=callers, provider=providers)
    def finish_unbonding(self, caller: Key, provider: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            caller,
            lambda: rules.apply_finish_unbonding(self.ledger, owner, now_s),
            "finish_unbonding",
            owner,
        )

    @rule(provider=providers, receipt_key=receipt_keys)
    def announce_receipt_key(self, provider: Key, receipt_key: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            provider,
            lambda: rules.apply_announce_receipt_key(
                self.ledger, owner, receipt_key.address, now_s
            ),
            "announce_receipt_key",
            receipt_key.address,
        )

    @rule(caller=callers, provider=providers)
    def complete_receipt_key(self, caller: Key, provider: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            caller,
            lambda: rules.apply_complete_receipt_key(self.ledger, owner, now_s),
            "complete_receipt_key",
            owner,
        )

    @rule(provider=providers, payee=users)
    def announce_payee(self, provider: Key, payee: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            provider,
            lambda: rules.apply_announce_payee(self.ledger, owner, payee.address, now_s),
            "announce_payee",
            payee.address,
        )

    @rule(caller=callers, provider=providers)
    def complete_payee(self, caller: Key, provider: Key) -> None:
        owner, now_s = provider.address, self.hanse.chain.now_s
        self.both(
            caller,
            lambda: rules.apply_complete_payee(self.ledger, owner, now_s),
            "complete_payee",
            owner,
        )

    @rule(caller=callers, provider=providers, revision=st.integers(0, 3), offer=st.booleans())
    def publish_service(self, caller: Key, provider: Key, revision: int, offer: bool) -> None:
        offer_hash = "0x" + ("0e" if offer else "00") * 32
        given = (provider.address, 1, revision)
        self.both(
            caller,
            lambda: rules.apply_publish_service(
                self.ledger, caller.address, *given, offer_hash, "chat", "uri", Prices(3, 2, 1)
            ),
            "publish_service",
            *given,
            to_bytes(offer_hash),
            "chat",
            "uri",
            *(3, 2, 1),
        )

    @rule(caller=callers, provider=providers)
    def retire_service(self, caller: Key, provider: Key) -> None:
        self.both(
            caller,
            lambda: rules.apply_retire_service(self.ledger, caller.address, provider.address, 1),
            "retire_service",
            provider.address,
            1,
        )

    # -------------------------------------------------------------- both sides of one step

    def both(
        self,
        actor: Key,
        apply: Callable[[], Step],
        function: str,
        *arguments: Any,
        caller: Key | None = None,
        settled: tuple[list[VoucherClaim], str | None] = ([], None),
    ) -> None:
        self.before, self.actor, self.settled = self.ledger, actor, settled
        self.effects = ()
        self.find_cheats()
        chain, hanse = self.hanse.chain, self.hanse
        to = next(
            address
            for address in (hanse.registry, hanse.records, hanse.escrow)
            if function in chain.artifacts[address].functions
        )
        sender = (caller or actor).address
        try:
            step = apply()
        except RequestError as refusal:
            with reverts(refusal.details["revert"]):
                chain.call(sender, to, function, *arguments)
            return
        outcome = chain.call(sender, to, function, *arguments)
        emitted = [(e.name, e.fields) for e in outcome.events if e.contract != "TestAsset"]
        moved = [e.fields for e in outcome.events if e.name == "Transfer"]
        assert emitted == [
            (effect.name, _as_on_chain(effect.fields))
            for effect in step.effects
            if isinstance(effect, Emitted)
        ]
        assert moved == [
            _as_transfer(effect, to, hanse)
            for effect in step.effects
            if not isinstance(effect, Emitted)
        ]
        self.ledger, self.effects = step.ledger, step.effects

    def sign_claim(
        self,
        provider: Key,
        user: Key,
        signer: Key,
        raise_by: str,
        over: int,
        sequence_by: int,
        ahead: int,
        forged: bool,
    ) -> VoucherClaim:
        key = SubAccountId(user.address, provider.address, signer.address)
        account = self.ledger.sub_accounts.get(key, rules.SubAccount())
        maximum = account.claimed + share_of(account.balance, raise_by)
        sequence_max = max(0, account.sequence + sequence_by)
        voucher = Voucher(user.address, provider.address, maximum, sequence_max, REQUEST_HASH)
        digest = self.hanse.domain.digest(voucher.struct_hash())
        r, vs = to_compact((RECEIPT_KEYS[1] if forged else signer).sign(digest))
        given = (user.address, signer.address, maximum)
        rest = (REQUEST_HASH, r, vs)
        if not forged:
            whole = VoucherClaim(*given, maximum, sequence_max, sequence_max, *rest)
            self.signed.setdefault(key, []).append(whole)
        claimed, sequence = max(0, maximum + over), max(0, sequence_max + ahead)
        return VoucherClaim(*given, claimed, sequence, sequence_max, *rest)

    # -------------------------------------------------------------- what must hold

    @invariant()
    def state_is_the_same(self) -> None:
        hanse, view = self.hanse, self.hanse.chain.view
        for user in USERS:
            assert view(hanse.escrow, "accounts", user.address) == self.ledger.accounts.get(
                user.address, 0
            )
            assert hanse.chain.view(hanse.escrow, "nonces", user.address) == (
                self.ledger.nonces.get(user.address, 0)
            )
        for key in {*self.ledger.sub_accounts, *self.ledger.refunds}:
            word = view(hanse.escrow, "sub_account_words", get_sub_account_key(*key))
            account = self.ledger.sub_accounts.get(key, rules.SubAccount())
            assert word == account.sequence << 192 | account.claimed << 96 | account.balance
            word = view(hanse.escrow, "refund_words", get_sub_account_key(*key))
            refund = self.ledger.refunds.get(key, rules.PendingRefund())
            assert word == refund.unlock_time_s << 96 | refund.amount
            paid_back = view(hanse.escrow, "compensations", get_sub_account_key(*key))
            assert paid_back == self.ledger.compensations.get(key, 0)
        for provider in ALL_PROVIDERS:
            entry = self.ledger.providers.get(provider.address, rules.Provider())
            assert view(hanse.registry, "get_provider", provider.address) == tuple(
                vars(entry).values()
            )
            active = view(hanse.registry, "is_active", provider.address)
            assert active == rules.is_active(self.ledger, provider.address)
            service = self.ledger.services.get((provider.address, 1), rules.Service())
            assert view(hanse.registry, "get_service", provider.address, 1) == (
                to_bytes(service.offer_hash),
                service.revision,
                service.active,
            )
        assert hanse.held(hanse.escrow) == self.ledger.escrow_held
        assert hanse.held(hanse.registry) == self.ledger.registry_held
        assert view(hanse.registry, "burned") == self.ledger.burned
        for recorder, head in self.ledger.records.items():
            found = view(hanse.records, "get_head", recorder)
            assert found == (head.number, to_bytes(head.head))

    @invariant()
    def named_invariants_hold(self) -> None:
        for check in CHECKS.values():
            check(self)

    def teardown(self) -> None:
        """Every user leaves, on the chain itself, with everybody else gone."""
        for user in USERS:
            for key in [key for key in self.ledger.sub_accounts if key.user == user.address]:
                pending = self.ledger.refunds.get(key, rules.PendingRefund()).amount
                balance = self.ledger.sub_accounts[key].balance
                free = balance - min(pending, balance)
                if free:
                    self.hanse.escrow_call(user, "request_refund", key.provider, key.signer, free)
        self.hanse.chain.advance(self.hanse.terms.lock_time_s)
        for key, account in self.ledger.sub_accounts.items():
            if account.balance:
                self.hanse.escrow_call(key_of("stranger"), "claim_refund", *key)
        for user in USERS:
            free = self.hanse.account(user)
            if free:
                self.hanse.escrow_call(user, "withdraw", free)
        assert self.hanse.held(self.hanse.escrow) == 0


def _highest(machine: ContractsBesideLedger) -> Mapping[SubAccountId, int]:
    return {key: max(v.cumulative_max for v in made) for key, made in machine.signed.items()}


def _best(machine: ContractsBesideLedger, provider: Key) -> list[VoucherClaim]:
    best = []
    for key, made in machine.signed.items():
        account = machine.ledger.sub_accounts.get(key, rules.SubAccount())
        usable = [v for v in made if v.sequence_max >= account.sequence]
        if key.provider == provider.address and usable:
            best.append(max(usable, key=lambda v: v.cumulative_max))
    return best


def _exits(machine: ContractsBesideLedger) -> None:
    for user in USERS:
        now_s = machine.hanse.chain.now_s
        named.user_can_exit_within_lock_time(machine.ledger, user.address, now_s)


def _claims(machine: ContractsBesideLedger) -> None:
    for provider in ALL_PROVIDERS:
        best = _best(machine, provider)
        named.provider_can_claim_what_was_signed(machine.ledger, provider.address, best)


CHECKS: dict[str, Callable[[ContractsBesideLedger], None]] = {
    "asset_held_equals_books": lambda m: named.asset_held_equals_books(m.ledger),
    "no_balance_is_negative": lambda m: named.no_balance_is_negative(m.ledger),
    "claimed_within_highest_voucher": lambda m: named.claimed_within_highest_voucher(
        m.ledger, _highest(m)
    ),
    "claimed_and_sequence_never_fall": lambda m: named.claimed_and_sequence_never_fall(
        m.before, m.ledger
    ),
    "user_can_exit_within_lock_time": _exits,
    "provider_can_claim_what_was_signed": _claims,
    "only_the_signer_raises_what_is_owed": lambda m: named.only_the_signer_raises_what_is_owed(
        m.before, m.ledger, *m.settled
    ),
    "no_admin_key_moves_funds": lambda m: named.no_admin_key_moves_funds(
        m.before, m.ledger, m.actor.address
    ),
    "stake_leaves_only_after_unbonding": lambda m: named.stake_leaves_only_after_unbonding(
        m.before, m.ledger, m.hanse.chain.now_s
    ),
    "receipt_key_belongs_to_one_provider": lambda m: named.receipt_key_belongs_to_one_provider(
        m.before, m.ledger
    ),
    "stake_is_conserved": lambda m: of_disputes.stake_is_conserved(m.before, m.ledger, m.effects),
    "condemned_is_for_ever": lambda m: of_disputes.condemned_is_for_ever(m.before, m.ledger),
    "half_of_a_slashed_stake_is_burned": lambda m: of_disputes.half_of_a_slashed_stake_is_burned(
        m.before, m.ledger
    ),
    "victim_never_paid_above_loss": lambda m: of_disputes.victim_never_paid_above_loss(
        m.ledger, m.get_receipts()
    ),
    "honest_provider_is_never_slashed": lambda m: of_disputes.honest_provider_is_never_slashed(
        m.ledger, m.cheats
    ),
    "numbers_are_consecutive": lambda m: of_disputes.numbers_are_consecutive(m.before, m.ledger),
    "head_names_all_commits": lambda m: of_disputes.head_names_all_commits(m.ledger, m.commits),
    "only_the_recorder_extends_its_chain": (
        lambda m: of_disputes.only_the_recorder_extends_its_chain(
            m.before, m.ledger, m.actor.address
        )
    ),
}


HASH_FIELDS = ("records_head", "offer_hash", "root", "head")


def _as_on_chain(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "results":
            plain[name] = tuple(_pack(result) for result in value)
        else:
            plain[name] = to_bytes(value) if name in HASH_FIELDS else value
    return plain


def _pack(result: Judgement) -> int:
    prefix = int.from_bytes(get_sub_account_key(*result.sub_account)[:15], "big")
    return prefix << 136 | result.status << 128 | result.sequence % 2**32 << 96 | result.paid


def _as_transfer(moved: Moved | PaidOver, contract: str, hanse: Hanse) -> dict[str, Any]:
    if isinstance(moved, PaidOver):
        return {"sender": hanse.registry, "receiver": hanse.escrow, "amount": moved.amount}
    inward = moved.amount >= 0
    return {
        "sender": moved.wallet if inward else contract,
        "receiver": contract if inward else moved.wallet,
        "amount": abs(moved.amount),
    }


TestContractsBesideLedger = ContractsBesideLedger.TestCase
TestContractsBesideLedger.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_invariant_of_the_sources_is_checked_by_its_name() -> None:
    folder = Path(hanse.contracts.__file__).parent
    promised: set[str] = set()
    for name in ("Escrow", "Registry", "Records"):
        notes = (folder / f"{name}.vy").read_text().split('"""')[1].split("@custom:invariant")[1]
        promised |= set(re.findall(r"^ {5}(\w+):", notes, re.MULTILINE))
    assert promised == set(CHECKS)


def test_every_revert_reason_of_the_sources_is_in_the_ledgers_table() -> None:
    """ "lock time" and the like are refusals of a constructor, which no caller meets."""
    folder = Path(hanse.contracts.__file__).parent
    reasons: set[str] = set()
    for name in ("Escrow", "Registry", "Records", "Disputes"):
        source = (folder / f"{name}.vy").read_text()
        calls = re.sub(r"@deploy.*?\n# -----", "", source, count=1, flags=re.DOTALL)
        reasons |= set(re.findall(r'^ +assert .*"([a-z ]+)"$', calls, re.MULTILINE))
    assert reasons | {""} == set(rules.REVERT_REASONS)


def test_revert_reasons_agree_with_the_error_table() -> None:
    for code, row in ERROR_TABLE.items():
        if row.revert:
            assert rules.REVERT_REASONS[row.revert].code == code
    assert {refusal.code for refusal in rules.REVERT_REASONS.values()} <= set(ERROR_TABLE)
