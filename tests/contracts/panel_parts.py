"""A market with staked auditors, and shorthands for challenges of one provider's receipts."""

from dataclasses import astuple, dataclass
from typing import Any

import msgspec

from hanse.contracts.deployment import PanelTerms, Terms
from hanse.protocol import ledger as rules
from hanse.protocol.ledger.panels.sealing import Verdict, seal_answer, seal_vote
from hanse.protocol.ledger.panels.state import PanelRules
from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.signatures import to_bytes, to_compact, to_hex
from tests.contracts.dispute_parts import make_receipt, to_row
from tests.contracts.local_evm import START_S, Hanse, Key, Outcome, deploy_hanse, key_of

PANELS = PanelTerms(
    lot_stake=160,
    bond=200,
    seat_fee=7,
    seats=3,
    appeal_seats=5,
    audit_window_s=600,
    vote_time_s=120,
    reveal_time_s=60,
    appeal_time_s=90,
    answer_time_s=61,
)
TERMS = Terms(minimum_stake=1_000, panels=PANELS)
FEES = PANELS.seats * PANELS.seat_fee
APPEAL_FEES = PANELS.appeal_seats * PANELS.seat_fee
DEPOSIT = PANELS.bond + FEES
APPEAL_DEPOSIT = 2 * PANELS.bond + APPEAL_FEES
MISTAKE, ABSENCE = PANELS.lot_stake // 4, PANELS.lot_stake // 16

AUDITORS = [key_of(f"auditor {number}") for number in range(9)]
PROVIDER, RECEIPT_KEY = key_of("provider"), key_of("receipt key")
CHALLENGER, USER, APPELLANT = key_of("challenger"), key_of("user"), key_of("appellant")
EVIDENCE = "0x" + "e1" * 32
SALT = "0x" + "5a" * 32
URI = "https://evidence.test/1"
RICH = 2**90


def get_rules(hanse: Hanse) -> rules.Rules:
    terms = hanse.terms
    panels = terms.panels
    assert panels is not None
    return rules.Rules(
        domain=hanse.domain,
        lock_time_s=terms.lock_time_s,
        minimum_stake=terms.minimum_stake,
        dispute_window_s=terms.dispute_window_s,
        unbonding_time_s=terms.unbonding_time_s,
        key_delay_s=terms.key_delay_s,
        panels=PanelRules(*astuple(panels)),
    )


def sign(hanse: Hanse, receipt: Receipt, key: Key = RECEIPT_KEY) -> SignedReceipt:
    return SignedReceipt(receipt, key.sign(hanse.domain.digest(receipt.struct_hash())))


def to_arguments(signed: SignedReceipt) -> tuple[Any, ...]:
    r, vs = to_compact(signed.signature)
    return to_row(signed.receipt), r, int.from_bytes(vs, "big")


@dataclass
class Court:
    """A market of one provider, nine auditors with a lot each, and who accuses it."""

    hanse: Hanse

    def call(self, caller: Key, function: str, *arguments: Any) -> Outcome:
        return self.hanse.disputes_call(caller, function, *arguments)

    def view(self, function: str, *arguments: Any) -> Any:
        return self.hanse.chain.view(self.hanse.disputes, function, *arguments)

    def receipt(self, sequence: int = 1, **changes: Any) -> SignedReceipt:
        made = make_receipt(USER, PROVIDER, USER, sequence, 70)
        return sign(self.hanse, msgspec.structs.replace(made, **changes))

    def challenge(
        self,
        answer: Verdict = Verdict.NONE,
        signed: SignedReceipt | None = None,
        evidence: str = EVIDENCE,
        challenger: Key = CHALLENGER,
    ) -> str:
        outcome = self.call(
            challenger,
            "challenge",
            *to_arguments(signed or self.receipt()),
            to_bytes(evidence),
            URI,
            to_bytes(seal_answer(challenger.address, answer, SALT)),
        )
        (name,) = outcome.output
        return to_hex(name)

    def draw(self, name: str) -> list[Key]:
        """The panel of the round that is open; goes on until it is full."""
        self.hanse.chain.mine(3)
        while not self.call(key_of("stranger"), "draw", to_bytes(name)).output[0]:
            pass
        return self.get_panel(name)

    def get_panel(self, name: str) -> list[Key]:
        number = self.view("get_challenge", to_bytes(name))[6]
        drawn = self.view("get_panel", to_bytes(name), number)
        return [key for key in AUDITORS for address in drawn if key.address == address]

    def seal(self, name: str, auditor: Key, verdict: Verdict, number: int = 1) -> Outcome:
        sealed = seal_vote(name, number, auditor.address, verdict, SALT)
        return self.call(auditor, "seal_vote", to_bytes(name), to_bytes(sealed))

    def reveal(self, name: str, auditor: Key, verdict: Verdict) -> Outcome:
        return self.call(auditor, "reveal_vote", to_bytes(name), verdict, to_bytes(SALT))

    def decide(self, name: str, *votes: Verdict) -> list[Key]:
        """Draw, have the panel vote this (NONE: it stays away), and tally."""
        panel = self.draw(name)
        number = self.view("get_challenge", to_bytes(name))[6]
        assert len(votes) == len(panel)
        cast = [(a, vote) for a, vote in zip(panel, votes, strict=True) if vote]
        for auditor, vote in cast:
            self.seal(name, auditor, vote, number)
        if len(cast) < len(panel):
            self.hanse.chain.advance(PANELS.vote_time_s)
        for auditor, vote in cast:
            self.reveal(name, auditor, vote)
        if len(cast) < len(panel):
            self.hanse.chain.advance(PANELS.reveal_time_s)
        self.call(key_of("stranger"), "tally", to_bytes(name))
        return panel

    def appeal(self, name: str, appellant: Key = APPELLANT) -> None:
        self.call(appellant, "appeal", to_bytes(name))

    def open_answer(self, name: str, answer: Verdict = Verdict.NONE) -> Outcome:
        self.hanse.chain.advance(PANELS.appeal_time_s)
        return self.call(CHALLENGER, "open_answer", to_bytes(name), answer, to_bytes(SALT))

    def credit(self, key: Key) -> int:
        amount: int = self.view("credits", key.address)
        return amount

    def stake(self, auditor: Key) -> int:
        amount: int = self.view("get_auditor", auditor.address)[1]
        return amount

    def provider(self) -> dict[str, int]:
        found = self.hanse.chain.view(self.hanse.registry, "get_provider", PROVIDER.address)
        return {"stake": found[0], "pool": found[8], "condemned_until_s": found[9]}

    def assert_conserved(self) -> None:
        """With no challenge open: everything held is a stake, a credit or burned."""
        everybody = [*AUDITORS, PROVIDER, CHALLENGER, USER, APPELLANT]
        owed = sum(self.stake(a) for a in AUDITORS) + sum(self.credit(k) for k in everybody)
        assert self.hanse.held(self.hanse.disputes) == owed + self.view("burned")


def open_court(auditors: int = len(AUDITORS), terms: Terms = TERMS) -> Court:
    """A provider staked, auditors in, and everybody rich; a second later."""
    hanse = deploy_hanse(terms)
    hanse.register(PROVIDER, RECEIPT_KEY)
    for key in (*AUDITORS, CHALLENGER, APPELLANT, PROVIDER, USER):
        hanse.mint(key.address, RICH, hanse.disputes)
    court = Court(hanse)
    for auditor in AUDITORS[:auditors]:
        court.call(auditor, "join", 1)
    hanse.chain.advance(1)
    assert hanse.chain.now_s == START_S + 1
    return court
