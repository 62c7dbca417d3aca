"""What auditors earn who do not look, simulated on the reference ledger: `make sim-auditors`.

Every challenge runs through the transitions that the stateful test holds equal to `Disputes.vy`:
drawn by lots, sealed, revealed, tallied, appealed, closed, fined. Assumed, and simulated from
nothing: how many challenges are true, how often an honest look errs, what a look costs, that a
party that was right appeals, and that an auditor fills up what fines took while its purse lasts.

party that was right appeals, and that an auditor fills up after fines while its purse lasts.
if at the stated rate of planted challenges not looking pays any better than looking.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from hanse.contracts.deployment import Terms, derive_panel_terms
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger import Emitted, Ledger, Rules, Step, apply_register
from hanse.protocol.ledger.panels import auditors, challenges, closing, drawing, votes
from hanse.protocol.ledger.panels.parts import ABSENCE_PART, MISTAKE_PART, Now
from hanse.protocol.ledger.panels.sealing import Verdict, seal_answer, seal_vote
from hanse.protocol.ledger.panels.state import PanelRules, Stage
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.signatures import ZERO_HASH, get_address, keccak, sign_digest, to_hex

UNIT = 1_000_000
UP, NO, AWAY = Verdict.UPHELD, Verdict.REJECTED, Verdict.NONE
TERMS = Terms()
PANELS = derive_panel_terms(TERMS)
DOMAIN = Domain(31_337, "0x" + "e5" * 20)
SALT = "0x" + "5a" * 32
RECEIPT_SECRET = PrivateKey(keccak(b"receipt key"))
USER, CHALLENGER, PLANTER = ("0x" + digit * 40 for digit in "123")
STRATEGIES = ("looks", "always upholds", "always rejects", "tosses a coin", "stays away")


@dataclass(frozen=True)
class Setting:
    """What is assumed.

    Attributes:
        auditors: how many, with one lot each.
        lazy_ppm: how many in a million do not look, in equal parts of the four ways.
        planted_ppm: planted challenges in a million.
        true_ppm: real challenges in a million that are true.
        error_ppm: honest looks in a million that err.
        look_cost: base units that a look costs.
        purse: base units that an auditor puts after fines before it gives up.
    """

    auditors: int = 100
    lazy_ppm: int = 200_000
    planted_ppm: int = 20_000
    true_ppm: int = 950_000
    error_ppm: int = 1_000
    look_cost: int = UNIT // 20
    purse: int = 10 * PANELS.lot_stake


@dataclass
class Tally:
    """What one strategy came to, in base units."""

    seats: int = 0
    fees: int = 0
    fines: int = 0
    looked: int = 0


@dataclass
class Market:
    """The ledger, who its auditors are, and what became of them."""

    setting: Setting
    dice: random.Random
    ledger: Ledger = field(init=False)
    strategy: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    block: int = 1
    now_s: int = 1_800_000_000
    number: int = 0

    def __post_init__(self) -> None:
        rules = Rules(
            domain=DOMAIN,
            lock_time_s=TERMS.lock_time_s,
            minimum_stake=TERMS.minimum_stake,
            dispute_window_s=TERMS.dispute_window_s,
            unbonding_time_s=TERMS.unbonding_time_s,
            key_delay_s=TERMS.key_delay_s,
            panels=PanelRules(*astuple(PANELS)),
        )
        self.ledger = Ledger(rules)
        self.tallies = {strategy: Tally() for strategy in STRATEGIES}
        lazy = self.setting.auditors * self.setting.lazy_ppm // 1_000_000
        for number in range(self.setting.auditors):
            address = f"0x{0xA000 + number:040x}"
            way = STRATEGIES[1 + number % 4] if number < lazy else STRATEGIES[0]
            self.strategy[address] = way
            self.do(auditors.apply_join(self.ledger, address, 1, self.now))

    @property
    def now(self) -> Now:
        return Now(self.block, self.now_s)

    def do(self, step: Step) -> Step:
        self.ledger = step.ledger
        for effect in step.effects:
            if not isinstance(effect, Emitted):
                continue
            who = effect.fields.get("auditor", effect.fields.get("holder", ""))
            if who in self.strategy and effect.name == "Credited":
                self.tallies[self.strategy[who]].fees += effect.fields["amount"]
            elif who in self.strategy and effect.name == "Fined":
                self.tallies[self.strategy[who]].fines += effect.fields["amount"]
        return step

    def run_one(self) -> None:
        """One challenge from beginning to end, and the ledger cleared of it."""
        planted = self.dice.randrange(1_000_000) < self.setting.planted_ppm
        if planted:
            truth = self.dice.choice((UP, NO))
        else:
            truth = UP if self.dice.randrange(1_000_000) < self.setting.true_ppm else NO
        answer = truth if planted else AWAY
        challenger = PLANTER if planted else CHALLENGER
        name = self.bring(challenger, answer)
        verdict = self.judge(name, truth)
        if verdict != truth:
            self.wrong["first verdicts"] += 1
            # Whoever was right knows it: the planter, the accused or the challenger.
            appellant = PLANTER if planted else USER
            try:
                self.do(challenges.apply_appeal(self.ledger, appellant, name, self.now))
            except RequestError:
                self.wrong["appeals without auditors"] += 1
            else:
                self.judge(name, truth)
        self.now_s += PANELS.appeal_time_s
        if closing.get_verdict(self.ledger.panels, name) != truth:
            self.wrong["last verdicts"] += 1
            self.wrong["innocent condemned"] += (
                truth == NO
                and not planted
                and bool(closing.get_verdict(self.ledger.panels, name) == UP)
            )
        self.do(closing.apply_open_answer(self.ledger, name, answer, SALT, self.now))
        self.clear()
        self.fill_up()

    def bring(self, challenger: str, answer: Verdict) -> str:
        self.number += 1
        self.now_s += 1
        provider = f"0x{0xB000_0000 + self.number:040x}"
        secret = PrivateKey(keccak(b"receipt key %d" % self.number))
        address = get_address(secret.public_key)
        self.do(apply_register(self.ledger, provider, TERMS.minimum_stake, address, provider))
        receipt = Receipt(
            USER, provider, USER, 1, SALT, SALT, Usage(1, 0, 1), 100, 100, FinishReason.STOP,
            self.now_s, ZERO_HASH,
        )  # fmt: skip
        signed = SignedReceipt(receipt, sign_digest(secret, DOMAIN.digest(receipt.struct_hash())))
        sealed = seal_answer(challenger, answer, SALT)
        made = challenges.apply_challenge(
            self.ledger, challenger, signed, SALT, "", sealed, self.now
        )
        (emitted,) = [effect for effect in self.do(made).effects if isinstance(effect, Emitted)]
        name: str = emitted.fields["challenge"]
        return name

    def judge(self, name: str, truth: Verdict) -> Verdict:
        """Draw a panel, have each auditor vote in its way, tally."""
        self.block += 3
        while self.ledger.panels.challenges[name].stage == Stage.DRAWING:
            seed = to_hex(self.dice.randbytes(32))
            self.do(drawing.apply_draw(self.ledger, name, self.now, seed))
        found = self.ledger.panels.challenges[name]
        panel = self.ledger.panels.panels[name, found.round]
        if not panel:
            self.wrong["without a panel"] += 1
            return AWAY
        cast = {}
        for auditor in panel:
            vote = self.vote(self.strategy[auditor], truth)
            self.tallies[self.strategy[auditor]].seats += 1
            if vote:
                cast[auditor] = vote
                sealed = seal_vote(name, found.round, auditor, vote, SALT)
                self.do(votes.apply_seal_vote(self.ledger, auditor, name, sealed, self.now))
        self.now_s += PANELS.vote_time_s
        for auditor, vote in cast.items():
            self.do(votes.apply_reveal_vote(self.ledger, auditor, name, vote, SALT, self.now))
        self.now_s += PANELS.reveal_time_s
        self.do(votes.apply_tally(self.ledger, name, self.now))
        return self.ledger.panels.rounds[name, found.round].verdict

    def vote(self, strategy: str, truth: Verdict) -> Verdict:
        if strategy == "looks":
            self.tallies[strategy].looked += self.setting.look_cost
            errs = self.dice.randrange(1_000_000) < self.setting.error_ppm
            return (NO if truth == UP else UP) if errs else truth
        blind = {"always upholds": UP, "always rejects": NO, "stays away": AWAY}
        return blind[strategy] if strategy in blind else self.dice.choice((UP, NO))

    def clear(self) -> None:
        """Closed challenges and their providers are never read again; stakes and credits stay."""
        panels = replace(self.ledger.panels, challenges={}, rounds={}, panels={}, ballots={})
        self.ledger = replace(self.ledger, panels=panels, providers={}, receipt_keys={})

    def fill_up(self) -> None:
        for auditor, known in self.ledger.panels.auditors.items():
            missing = known.lots * PANELS.lot_stake - known.stake
            if missing and self.spent[auditor] + missing <= self.setting.purse:
                self.spent[auditor] += missing
                self.do(auditors.apply_join(self.ledger, auditor, 0, self.now))


def measure(setting: Setting, count: int, seed: int) -> dict[str, Any]:
    """Run so many challenges; per seat, what each strategy came to, in base units."""
    market = Market(setting, random.Random(seed))
    for _ in range(count):
        market.run_one()
    rows = {}
    for strategy, tally in market.tallies.items():
        if tally.seats:
            net = tally.fees - tally.fines - tally.looked
            rows[strategy] = {
                "seats": tally.seats,
                "fees_per_seat": tally.fees // tally.seats,
                "fines_per_seat": tally.fines // tally.seats,
                "net_per_seat": net // tally.seats,
            }
    counted = {name.replace(" ", "_"): market.wrong[name] for name in (
        "first verdicts", "last verdicts", "innocent condemned", "without a panel"
    )}  # fmt: skip
    out = sum(
        known.stake < known.lots * PANELS.lot_stake
        for known in market.ledger.panels.auditors.values()
    )
    return {"challenges": count, "wrong": counted, "auditors_out": out, "strategies": rows}


def compute_break_even_ppm(setting: Setting) -> dict[str, int]:
    """Planted challenges in a million from which a blind vote earns less than a look.

    By arithmetic: per seat a look earns f (1 - e) - c. A blind vote earns f times how often it is
    right, less M times how often it is wrong in a planted challenge. Of planted ones half are true.
    With a share p planted, and r how often the blind vote is right in real ones:

        blind = f ((1 - p) r + p / 2) - p M / 2

    so look > blind from p = (c - f (1 - e - r)) / (f (r - 1/2) + M / 2); 0 if fees alone do it.
    """
    fee, fine = PANELS.seat_fee, PANELS.lot_stake // MISTAKE_PART
    found = {}
    for strategy, right_ppm in (
        ("always upholds", setting.true_ppm),
        ("always rejects", 1_000_000 - setting.true_ppm),
        ("tosses a coin", 500_000),
    ):
        gap = setting.look_cost * 1_000_000 - fee * (1_000_000 - setting.error_ppm - right_ppm)
        slope = fee * (right_ppm - 500_000) + fine * 500_000
        found[strategy] = max(0, -(-gap * 1_000_000 // slope))
    return found


def run(count: int, seed: int) -> Iterator[dict[str, Any]]:
    base = Setting()
    yield {
        "case": "terms",
        "seat_fee": PANELS.seat_fee,
        "fine_mistake": PANELS.lot_stake // MISTAKE_PART,
        "fine_absence": PANELS.lot_stake // ABSENCE_PART,
        "look_cost": base.look_cost,
        "break_even_planted_ppm": compute_break_even_ppm(base),
    }
    for planted_ppm in (0, 5_000, 20_000, 50_000):
        setting = replace(base, planted_ppm=planted_ppm)
        yield {"case": "planted", "planted_ppm": planted_ppm, **measure(setting, count, seed)}
    for lazy_ppm in (0, 400_000, 600_000):
        setting = replace(base, lazy_ppm=lazy_ppm)
        yield {"case": "lazy", "lazy_ppm": lazy_ppm, **measure(setting, count, seed)}
    # Once lazy auditors have no more to fill up with, panels are of those who look.
    yield {
        "case": "short purse", "lazy_ppm": 600_000, "purse": 0,
        **measure(replace(base, lazy_ppm=600_000, purse=0), count, seed),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--challenges", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = Table(title="Per seat, in thousandths of a whole unit; looking costs 50 of them")
    for heading in ("planted", "lazy", *STRATEGIES, "wrong first", "wrong last", "innocent"):
        table.add_column(heading, justify="right")
    pays = False
    for row in run(options.challenges, options.seed):
        print(json.dumps(row), flush=True)
        if "strategies" not in row:
            continue
        nets = {name: found["net_per_seat"] for name, found in row["strategies"].items()}
        if row.get("planted_ppm", 20_000) >= 20_000 and row["case"] == "planted":
            pays |= max(nets.values()) > nets["looks"]
        table.add_row(
            f"{row.get('planted_ppm', Setting().planted_ppm) / 10_000:g} %",
            f"{row.get('lazy_ppm', Setting().lazy_ppm) / 10_000:g} %",
            *(str(round(nets[name] / 1_000)) if name in nets else "" for name in STRATEGIES),
            *(str(row["wrong"][name]) for name in (
                "first_verdicts", "last_verdicts", "innocent_condemned"
            )),
        )  # fmt: skip
    Console(stderr=True).print(table)
    return int(pays)


if __name__ == "__main__":
    sys.exit(main())
