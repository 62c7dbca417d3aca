"""Disputes beside the reference ledger, in any order of calls: same state, events, refusals.

As `test_ledger_equals_contracts`, for the contract that it leaves out: every step runs on both, all
of the state is compared, and every invariant of `Disputes.vy` is checked by its name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import hanse.contracts
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger import Effect, Emitted, Ledger, Moved, PaidOver, Step
from hanse.protocol.ledger import dispute_invariants as of_disputes
from hanse.protocol.ledger import invariants as of_all
from hanse.protocol.ledger import registry as providers
from hanse.protocol.ledger.panels import auditors, challenges, closing, drawing, parts, votes
from hanse.protocol.ledger.panels import invariants as named
from hanse.protocol.ledger.panels.sealing import Verdict, seal_answer, seal_vote
from hanse.protocol.ledger.panels.state import NO_BALLOT, Challenge, Round, Stage
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import ZERO_HASH, to_bytes, to_hex
from tests.contracts.dispute_parts import make_receipt
from tests.contracts.local_evm import Key, deploy_hanse, key_of, reverts
from tests.contracts.panel_parts import (
    AUDITORS,
    CHALLENGER,
    EVIDENCE,
    RICH,
    SALT,
    TERMS,
    URI,
    get_rules,
    sign,
    to_arguments,
)

PROVIDERS = [key_of("provider 0"), key_of("provider 1")]
RECEIPT_KEYS = [key_of("receipt key 0"), key_of("receipt key 1")]
STRANGER = key_of("stranger")
# Parties that are auditors too, and an accused that accuses itself: nobody's role keeps it out.
CHALLENGERS = [CHALLENGER, AUDITORS[0], PROVIDERS[0]]
USERS = [key_of("user"), AUDITORS[1]]
EVERYBODY = [*AUDITORS, *PROVIDERS, CHALLENGER, USERS[0], STRANGER]
UP, NO, AWAY = Verdict.UPHELD, Verdict.REJECTED, Verdict.NONE

keys = st.sampled_from(AUDITORS)
verdicts = st.sampled_from([UP, UP, NO, NO, AWAY])
picks = st.integers(0, 2**16)
answers = st.sampled_from([AWAY, AWAY, UP, NO])
votes_cast = st.lists(verdicts, min_size=5, max_size=5)


class PanelsBesideLedger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.hanse = deploy_hanse(TERMS)
        self.ledger = Ledger(get_rules(self.hanse))
        self.before, self.actor = self.ledger, STRANGER
        self.effects: tuple[Effect, ...] = ()
        self.answers: dict[str, Verdict] = {}
        self.made: list[str] = []
        self.lots_then: dict[tuple[str, int], list[str]] = {}
        self.evidence = 0
        for key in EVERYBODY:
            self.hanse.mint(key.address, RICH, self.hanse.disputes)
        for owner, receipt_key in zip(PROVIDERS, RECEIPT_KEYS, strict=True):
            self.hanse.mint(owner.address, RICH, self.hanse.registry)
            stake, key, payee = 1_000, receipt_key.address, owner.address
            self.both_registry(
                owner,
                lambda o=owner, k=key, p=payee: providers.apply_register(
                    self.ledger, o.address, 1_000, k, p
                ),
                "register",
                stake,
                key,
                payee,
            )
        for auditor in AUDITORS:
            self.join(auditor, 1)
        self.hanse.chain.advance(1)

    @property
    def now(self) -> parts.Now:
        return parts.Now(self.hanse.chain.block, self.hanse.chain.now_s)

    # -------------------------------------------------------------- rules

    @rule(seconds=st.sampled_from([1, 61, 90, 120, 0]))
    def advance(self, seconds: int) -> None:
        """So long, or to the next time at which something changes."""
        times = [found.until_s for found in self.ledger.panels.challenges.values()]
        for current in self.ledger.panels.rounds.values():
            times += [current.vote_until_s, current.reveal_until_s]
        due = [time_s for time_s in times if time_s > self.now.time_s]
        self.hanse.chain.advance(seconds or (min(due) - self.now.time_s if due else 1))
        self.quiet()

    @rule(blocks=st.sampled_from([1, 3, 3, 300]))
    def mine(self, blocks: int) -> None:
        self.hanse.chain.mine(blocks)
        self.quiet()

    @rule(auditor=keys, count=st.sampled_from([0, 1, 2, 3, 21]))
    def join(self, auditor: Key, count: int) -> None:
        self.both(
            auditor,
            lambda: auditors.apply_join(self.ledger, auditor.address, count, self.now),
            "join",
            count,
        )

    @rule(auditor=keys)
    def retire(self, auditor: Key) -> None:
        self.both(auditor, lambda: auditors.apply_retire(self.ledger, auditor.address), "retire")

    @rule(auditor=keys, count=st.sampled_from([0, 1, 1, 2, 3, 21]))
    def leave(self, auditor: Key, count: int) -> None:
        self.both(
            auditor,
            lambda: auditors.apply_leave(self.ledger, auditor.address, count),
            "leave",
            count,
        )

    @rule(holder=st.sampled_from(EVERYBODY))
    def withdraw(self, holder: Key) -> None:
        self.both(
            holder,
            lambda: auditors.apply_withdraw_credit(self.ledger, holder.address),
            "withdraw",
        )

    @rule(
        challenger=st.sampled_from(CHALLENGERS),
        user=st.sampled_from(USERS),
        provider=st.integers(0, 1),
        answer=answers,
        fee=st.sampled_from([0, 7, 450, 2**256 - 1]),
        age_s=st.sampled_from([0, 600, 601]),
        wrong=st.sampled_from(["", "", "", "", "signature", "evidence", "answer", "again"]),
    )
    def challenge(
        self,
        challenger: Key,
        user: Key,
        provider: int,
        answer: Verdict,
        fee: int,
        age_s: int,
        wrong: str,
    ) -> None:
        made = make_receipt(user, PROVIDERS[provider], user, 1, 70)
        made = msgspec.structs.replace(made, fee=fee, finished_at=self.now.time_s - age_s)
        signer = STRANGER if wrong == "signature" else RECEIPT_KEYS[provider]
        signed = sign(self.hanse, made, signer)
        self.evidence += wrong != "again"
        evidence = ZERO_HASH if wrong == "evidence" else f"0x{self.evidence:064x}"
        sealed = seal_answer(challenger.address, answer, SALT)
        if wrong == "answer":
            sealed = ZERO_HASH
        self.send_challenge(challenger, signed, evidence, sealed, answer)

    def send_challenge(
        self,
        challenger: Key,
        signed: SignedReceipt,
        evidence: str,
        sealed: str,
        answer: Verdict = AWAY,
    ) -> None:
        self.both(
            challenger,
            lambda: challenges.apply_challenge(
                self.ledger, challenger.address, signed, evidence, URI, sealed, self.now
            ),
            "challenge",
            *to_arguments(signed),
            to_bytes(evidence),
            URI,
            to_bytes(sealed),
        )
        if not self.effects:
            return
        (emitted,) = [effect for effect in self.effects if isinstance(effect, Emitted)]
        name: str = emitted.fields["challenge"]
        self.made.append(name)
        self.answers[name] = answer
        self.note_lots(name, 1)

    @rule(caller=st.sampled_from([*PROVIDERS, *RECEIPT_KEYS, STRANGER]), pick=picks)
    def respond(self, caller: Key, pick: int) -> None:
        name = self.pick(pick)
        self.both(
            caller,
            lambda: challenges.apply_respond(self.ledger, caller.address, name, EVIDENCE, URI),
            "respond",
            to_bytes(name),
            to_bytes(EVIDENCE),
            URI,
        )

    @rule(pick=picks)
    def draw(self, pick: int) -> None:
        self.draw_for(self.pick(pick))

    def draw_for(self, name: str) -> None:
        found = self.ledger.panels.challenges.get(name, Challenge())
        current = self.ledger.panels.rounds.get((name, found.round), Round())
        block_hash = to_hex(self.hanse.chain.get_block_hash(current.seed_block))
        self.both(
            STRANGER,
            lambda: drawing.apply_draw(self.ledger, name, self.now, block_hash),
            "draw",
            to_bytes(name),
        )

    @rule(pick=picks, seat=st.integers(0, 5), verdict=verdicts, stranger=st.booleans())
    def seal_vote(self, pick: int, seat: int, verdict: Verdict, stranger: bool) -> None:
        name = self.pick(pick)
        self.seal_for(name, self.pick_seat(name, seat, stranger), verdict)

    def seal_for(self, name: str, auditor: Key, verdict: Verdict) -> None:
        number = self.ledger.panels.challenges.get(name, Challenge()).round
        sealed = seal_vote(name, number, auditor.address, verdict, SALT)
        self.both(
            auditor,
            lambda: votes.apply_seal_vote(self.ledger, auditor.address, name, sealed, self.now),
            "seal_vote",
            to_bytes(name),
            to_bytes(sealed),
        )

    @rule(pick=picks, seat=st.integers(0, 5), verdict=verdicts, stranger=st.booleans())
    def reveal_vote(self, pick: int, seat: int, verdict: Verdict, stranger: bool) -> None:
        name = self.pick(pick)
        self.reveal_for(name, self.pick_seat(name, seat, stranger), verdict)

    def reveal_for(self, name: str, auditor: Key, verdict: Verdict) -> None:
        self.both(
            auditor,
            lambda: votes.apply_reveal_vote(
                self.ledger, auditor.address, name, verdict, SALT, self.now
            ),
            "reveal_vote",
            to_bytes(name),
            verdict,
            to_bytes(SALT),
        )

    @rule(pick=picks)
    def tally(self, pick: int) -> None:
        name = self.pick(pick)
        self.both(
            STRANGER,
            lambda: votes.apply_tally(self.ledger, name, self.now),
            "tally",
            to_bytes(name),
        )

    @rule(appellant=st.sampled_from([*CHALLENGERS, STRANGER, AUDITORS[3]]), pick=picks)
    def appeal(self, appellant: Key, pick: int) -> None:
        name = self.pick(pick)
        self.both(
            appellant,
            lambda: challenges.apply_appeal(self.ledger, appellant.address, name, self.now),
            "appeal",
            to_bytes(name),
        )
        if self.effects:
            self.note_lots(name, 2)

    @rule(pick=picks, lie=st.sampled_from([0, 0, 0, 1, 3]))
    def open_answer(self, pick: int, lie: int) -> None:
        name = self.pick(pick)
        answer = self.answers.get(name, AWAY) + lie
        self.both(
            STRANGER,
            lambda: closing.apply_open_answer(self.ledger, name, answer, SALT, self.now),
            "open_answer",
            to_bytes(name),
            answer,
            to_bytes(SALT),
        )

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        name = self.pick(pick)
        self.both(
            STRANGER,
            lambda: closing.apply_close(self.ledger, name, self.now),
            "close",
            to_bytes(name),
        )

    @rule(provider=st.integers(0, 1), finish=st.sampled_from([False] * 5 + [True]))
    def unbond(self, provider: int, finish: bool) -> None:
        owner = PROVIDERS[provider]
        self.both_registry(
            owner,
            lambda: providers.apply_begin_unbonding(self.ledger, owner.address, self.now.time_s),
            "begin_unbonding",
        )
        if finish:
            self.hanse.chain.advance(self.hanse.terms.unbonding_time_s)
            now_s = self.now.time_s
            self.both_registry(
                owner,
                lambda: providers.apply_finish_unbonding(self.ledger, owner.address, now_s),
                "finish_unbonding",
                owner.address,
            )

    @rule(
        challenger=st.sampled_from(CHALLENGERS),
        provider=st.integers(0, 1),
        answer=answers,
        cast=votes_cast,
        appellant=st.sampled_from([None, None, *CHALLENGERS]),
        cast_again=votes_cast,
        opens=st.booleans(),
    )
    def whole_challenge(
        self,
        challenger: Key,
        provider: int,
        answer: Verdict,
        cast: list[Verdict],
        appellant: Key | None,
        cast_again: list[Verdict],
        opens: bool,
    ) -> None:
        """From beginning to end: random calls seldom get so far."""
        self.challenge(challenger, USERS[0], provider, answer, 7, 0, "")
        if not self.effects:
            return
        index = len(self.made) - 1
        self.vote_through(index, cast)
        if appellant is not None:
            self.appeal(appellant, index)
            if self.effects:
                self.vote_through(index, cast_again)
        self.hanse.chain.advance(90)
        if opens:
            self.open_answer(index, 0)
        else:
            self.hanse.chain.advance(61)
            self.close(index)

    def vote_through(self, index: int, cast: list[Verdict]) -> None:
        name = self.made[index]
        self.hanse.chain.mine(3)
        self.draw_for(name)
        found = self.ledger.panels.challenges[name]
        while found.stage == Stage.DRAWING:
            self.draw_for(name)
            found = self.ledger.panels.challenges[name]
        panel = self.ledger.panels.panels[name, found.round]
        for address, verdict in zip(panel, cast, strict=False):
            if verdict:
                self.seal_for(name, BY_ADDRESS[address], verdict)
        self.hanse.chain.advance(120)
        for address, verdict in zip(panel, cast, strict=False):
            if verdict:
                self.reveal_for(name, BY_ADDRESS[address], verdict)
        self.hanse.chain.advance(60)
        self.check()
        self.tally(index)
        self.check()

    # -------------------------------------------------------------- both sides of one step

    def quiet(self) -> None:
        self.before, self.effects, self.actor = self.ledger, (), STRANGER

    def both(self, actor: Key, apply: Callable[[], Step], function: str, *arguments: Any) -> None:
        self.both_at(self.hanse.disputes, actor, apply, function, *arguments)

    def both_registry(
        self, actor: Key, apply: Callable[[], Step], function: str, *arguments: Any
    ) -> None:
        self.both_at(self.hanse.registry, actor, apply, function, *arguments)

    def both_at(
        self, to: str, actor: Key, apply: Callable[[], Step], function: str, *arguments: Any
    ) -> None:
        self.before, self.actor, self.effects = self.ledger, actor, ()
        chain = self.hanse.chain
        try:
            step = apply()
        except RequestError as refusal:
            with reverts(refusal.details["revert"]):
                chain.call(actor.address, to, function, *arguments)
            return
        outcome = chain.call(actor.address, to, function, *arguments)
        emitted = [(e.name, e.fields) for e in outcome.events if e.contract != "TestAsset"]
        moved = [e.fields for e in outcome.events if e.name == "Transfer"]
        assert emitted == [
            (effect.name, _as_on_chain(effect.fields))
            for effect in step.effects
            if isinstance(effect, Emitted)
        ]
        assert moved == [
            self.as_transfer(effect, to)
            for effect in step.effects
            if not isinstance(effect, Emitted)
        ]
        self.ledger, self.effects = step.ledger, step.effects

    def as_transfer(self, moved: Moved | PaidOver, contract: str) -> dict[str, Any]:
        if isinstance(moved, PaidOver):
            assert moved.receiver == "Disputes"
            ends = self.hanse.registry, self.hanse.disputes
        elif moved.amount >= 0:
            ends = moved.wallet, contract
        else:
            ends = contract, moved.wallet
        return {"sender": ends[0], "receiver": ends[1], "amount": abs(moved.amount)}

    def pick(self, number: int) -> str:
        return self.made[number % len(self.made)] if self.made else "0x" + "77" * 32

    def pick_seat(self, name: str, number: int, stranger: bool) -> Key:
        found = self.ledger.panels.challenges.get(name, Challenge())
        panel = self.ledger.panels.panels.get((name, found.round), ())
        if stranger or not panel:
            return AUDITORS[number]
        return BY_ADDRESS[panel[number % len(panel)]]

    def note_lots(self, name: str, number: int) -> None:
        self.lots_then[name, number] = [owner for owner, _ in self.ledger.panels.lots]

    # -------------------------------------------------------------- what must hold

    def check(self) -> None:
        self.state_is_the_same()
        self.named_invariants_hold()

    @invariant()
    def state_is_the_same(self) -> None:
        view, panels, to = self.hanse.chain.view, self.ledger.panels, self.hanse.disputes
        for key in AUDITORS:
            known = parts.get_auditor(panels, key.address)
            assert view(to, "get_auditor", key.address) == astuple(known)
        for number, (owner, rank) in enumerate(panels.lots):
            assert view(to, "lot_words", number) == int(owner, 16) << 96 | rank
        counts = {
            "lot_count": len(panels.lots),
            "auditor_count": sum(1 for known in panels.auditors.values() if known.lots),
            "pending_draws": panels.pending_draws,
            "open_challenges": panels.open_challenges,
            "burned": panels.burned,
        }
        assert {name: view(to, name) for name in counts} == counts
        for name, found in panels.challenges.items():
            assert view(to, "get_challenge", to_bytes(name)) == _as_row(found)
            for number in (1, 2):
                current = panels.rounds.get((name, number), Round())
                assert view(to, "get_round", to_bytes(name), number) == astuple(current)
                panel = panels.panels.get((name, number), ())
                assert view(to, "get_panel", to_bytes(name), number) == panel
        for (name, number, auditor), _ in panels.ballots.items():
            ballot = panels.ballots.get((name, number, auditor), NO_BALLOT)
            assert view(to, "get_ballot", to_bytes(name), number, auditor) == _as_row(ballot)
        for receipt_hash in panels.receipt_hashes.values():
            is_paid = receipt_hash in panels.paid_receipts
            assert view(to, "paid_receipts", to_bytes(receipt_hash)) == is_paid
        for key in EVERYBODY:
            assert view(to, "credits", key.address) == panels.credits.get(key.address, 0)
        for provider in PROVIDERS:
            entry = self.ledger.providers[provider.address]
            found_entry = view(self.hanse.registry, "get_provider", provider.address)
            assert found_entry == tuple(vars(entry).values())
        assert self.hanse.held(to) == panels.held
        assert self.hanse.held(self.hanse.registry) == self.ledger.registry_held

    @invariant()
    def named_invariants_hold(self) -> None:
        for check in CHECKS.values():
            check(self)
        # What Registry promises of stakes holds whoever slashes.
        of_all.asset_held_equals_books(self.ledger)
        of_disputes.stake_is_conserved(self.before, self.ledger, self.effects)
        of_disputes.condemned_is_for_ever(self.before, self.ledger)
        of_disputes.half_of_a_slashed_stake_is_burned(self.before, self.ledger)

    def get_block_hashes(self) -> dict[int, str]:
        seeds = {current.seed_block for current in self.ledger.panels.rounds.values()}
        return {number: to_hex(self.hanse.chain.get_block_hash(number)) for number in seeds}


BY_ADDRESS = {key.address: key for key in EVERYBODY}

CHECKS: dict[str, Callable[[PanelsBesideLedger], None]] = {
    "disputes_hold_what_they_owe": lambda m: named.disputes_hold_what_they_owe(m.ledger),
    "every_lot_has_one_owner": lambda m: named.every_lot_has_one_owner(m.ledger),
    "panel_is_of_others": lambda m: named.panel_is_of_others(m.ledger),
    "draw_follows_the_seed": lambda m: named.draw_follows_the_seed(
        m.ledger, m.lots_then, m.get_block_hashes()
    ),
    "verdict_needs_half_the_seats": lambda m: named.verdict_needs_half_the_seats(m.ledger),
    "seats_are_backed": lambda m: named.seats_are_backed(m.before, m.ledger, m.effects),
    "only_an_upheld_challenge_condemns": lambda m: named.only_an_upheld_challenge_condemns(
        m.before, m.ledger, m.effects
    ),
    "nobody_wins_by_losing": lambda m: named.nobody_wins_by_losing(m.before, m.ledger, m.effects),
    "burned_never_falls": lambda m: named.burned_never_falls(m.before, m.ledger, m.actor.address),
    "a_receipt_pays_once": lambda m: named.a_receipt_pays_once(m.before, m.ledger, m.effects),
    "seats_are_left_for_all": lambda m: named.seats_are_left_for_all(m.ledger),
}

HASH_FIELDS = ("challenge", "receipt_hash", "evidence_hash", "sealed_answer", "sealed_vote")


def _as_on_chain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: to_bytes(value) if name in HASH_FIELDS else value for name, value in fields.items()
    }


def _as_row(value: Any) -> tuple[Any, ...]:
    """A struct as the ABI has it: hashes are bytes."""
    return tuple(
        to_bytes(item) if name.startswith("sealed_") and isinstance(item, str) else item
        for name, item in vars(value).items()
    )


TestPanelsBesideLedger = PanelsBesideLedger.TestCase
TestPanelsBesideLedger.settings = settings(
    max_examples=80,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_invariant_of_the_source_is_checked_by_its_name() -> None:
    source = (Path(hanse.contracts.__file__).parent / "Disputes.vy").read_text()
    notes = source.split('"""')[1].split("@custom:invariant")[1]
    assert set(re.findall(r"^ {5}(\w+):", notes, re.MULTILINE)) == set(CHECKS)


def test_the_ledgers_bounds_are_the_contracts() -> None:
    source = (Path(hanse.contracts.__file__).parent / "Disputes.vy").read_text()
    for name in (
        "LOTS_PER_CALL_MAX",
        "DRAWS_PER_CALL",
        "DRAWS_MAX",
        "SEED_DELAY_BLOCKS",
        "BLOCK_HASHES",
        "SEATS_PER_LOT",
        "MISTAKE_PART",
        "ABSENCE_PART",
    ):
        assert f"\n{name}: constant(uint256) = {getattr(parts, name)}\n" in source
    for stage in Stage:
        if stage:
            assert f"\nSTAGE_{stage.name}: constant(uint256) = {stage.value}\n" in source
