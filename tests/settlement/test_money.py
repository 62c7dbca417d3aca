"""Money in words: for any state that the contracts can reach, every unit is explained once.

Random calls run on the reference ledger; the events that it emits are all that the explanations
know, besides what the contracts say now and books that fit them.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.chain import Event, Key
from hanse.contracts import get_sub_account_key
from hanse.protocol import ledger as rules
from hanse.protocol.books import UserBook
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund
from hanse.protocol.ledger import Emitted, Judgement, Ledger, Moved, SubAccountId, VoucherClaim
from hanse.protocol.messages import Voucher
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH, to_bytes, to_compact
from hanse.sdk.chain_view import IndexedChain
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.money.journal import BEFORE, Origin, split_origins
from hanse.settlement.money.places import ALARM_CODES, REFUND_GRACE_S, sum_by_code, sum_by_place
from hanse.settlement.money.provider_money import (
    SETTLEMENT_GRACE_S,
    OwedSubAccount,
    ProviderFacts,
    get_provider_money,
)
from hanse.settlement.money.user_money import (
    UserFacts,
    find_differences,
    find_user_alarms,
    get_user_places,
)

ESCROW, REGISTRY, ASSET = ("0x" + pair * 20 for pair in ("e5", "e6", "e7"))
USER = Key(b"\x05" * 32)
SESSION = Key(b"\x06" * 32)
PROVIDER = Key(b"\x07" * 32)
RECEIPT = Key(b"\x08" * 32)
STRANGER = "0x" + "99" * 20
SIGNERS = {"user": USER, "session": SESSION}
START_BLOCK = 100
HOUR_S = 3_600
RULES = rules.Rules(Domain(31337, ESCROW), HOUR_S, 100, HOUR_S, 2 * HOUR_S, HOUR_S)


def get_id(signer: str) -> SubAccountId:
    return SubAccountId(USER.address, PROVIDER.address, SIGNERS[signer].address)


@dataclass
class World:
    """A ledger, the wallets around it, and what the user's index makes of the events."""

    before: int = 0
    ledger: Ledger = field(default_factory=lambda: Ledger(RULES))
    now_s: int = 1_900_000_000

    def __post_init__(self) -> None:
        self.chain = IndexedChain(USER.address, USER.address)
        self.wallet = self.before
        self.documents: dict[str, bytes] = {}
        self.block = START_BLOCK
        self.index = 0
        self.signed: dict[SubAccountId, int] = {}
        register = rules.apply_register(
            self.ledger, PROVIDER.address, 100, RECEIPT.address, PROVIDER.address
        )
        self.take(register)

    def take(self, step: rules.Step) -> None:
        self.ledger = step.ledger
        self.block += 1
        for effect in step.effects:
            if isinstance(effect, Moved):
                if effect.wallet == USER.address:
                    pair = (USER.address, ESCROW) if effect.amount > 0 else (ESCROW, USER.address)
                    self.transfer(*pair, abs(effect.amount))
                continue
            self.emit(effect)

    def emit(self, effect: Emitted) -> None:
        fields = dict(effect.fields)
        if effect.name == "Settled":
            fields["results"] = [pack(result) for result in fields["results"]]
        registry = "stake" in fields or effect.name == "StakeAdded"
        self.fold("Registry" if registry else "Escrow", effect.name, fields)

    def transfer(self, sender: str, receiver: str, amount: int) -> None:
        """Of the asset; the wallet's balance follows."""
        self.wallet += amount * ((receiver == USER.address) - (sender == USER.address))
        fields = {"sender": sender, "receiver": receiver, "amount": amount}
        self.fold("TestAsset", "Transfer", fields)

    def fold(self, contract: str, name: str, fields: dict[str, Any]) -> None:
        self.index += 1
        hashed = f"0x{self.block:064x}"
        event = Event(
            contract, name, fields, ESCROW, self.block, ZERO_HASH, self.now_s, hashed, self.index
        )
        fold = self.chain.fold_transfer if contract == "TestAsset" else self.chain.fold
        changed: dict[str, bytes | None] = dict(fold(event, self.documents.get))
        self.documents.update({k: v for k, v in changed.items() if v is not None})
        self.chain.apply(changed, None)

    def do(self, name: str, signer: str, part: int) -> None:
        """One call with some hundredths of what is there; a refusal changes nothing."""
        ledger, user, key = self.ledger, USER.address, get_id(signer)
        account = ledger.accounts.get(user, 0)
        held = ledger.sub_accounts.get(key, rules.SubAccount())
        pending = ledger.refunds.get(key, rules.PendingRefund()).amount
        fund = Fund(PROVIDER.address, key.signer, (account + pending) * part // 100)
        calls: dict[str, Any] = {
            "receive": lambda: self.transfer(STRANGER, user, part * 10),
            "send": lambda: self.transfer(user, STRANGER, min(part * 5, self.wallet)),
            "to itself": lambda: self.transfer(user, user, min(part, self.wallet)),
            "deposit": lambda: rules.apply_deposit(ledger, user, min(part * 7, self.wallet)),
            "withdraw": lambda: rules.apply_withdraw(ledger, user, account * part // 100),
            "fund": lambda: rules.apply_fund(ledger, user, fund),
            "refund": lambda: rules.apply_request_refund(
                ledger, key, held.balance * part // 100, self.now_s
            ),
            "cancel": lambda: rules.apply_cancel_refund(ledger, key),
            "claim": lambda: rules.apply_claim_refund(ledger, key, self.now_s),
            "settle": lambda: self.settle(key, max(1, held.balance * part // 100)),
            "stake": lambda: (
                rules.apply_register(ledger, user, 100 + part, SESSION.address, user)
                if user not in ledger.providers
                else rules.apply_add_stake(ledger, user, max(100, part))
            ),
            "unbond": lambda: rules.apply_begin_unbonding(ledger, user, self.now_s),
            "stay": lambda: rules.apply_cancel_unbonding(ledger, user),
            "leave": lambda: rules.apply_finish_unbonding(ledger, user, self.now_s),
        }
        if name == "wait":
            self.now_s += part * 60 + (HOUR_S if part > 60 else 0)
            return
        if name == "stake" and self.wallet < 220:
            return
        try:
            step = calls[name]()
        except RequestError:
            return
        if step is not None:
            self.take(step)

    def settle(self, key: SubAccountId, amount: int) -> rules.Step:
        """The provider claims `amount` more; the ledger pays what is there."""
        before = self.ledger.sub_accounts.get(key, rules.SubAccount())
        claimed, sequence = before.claimed + amount, before.sequence + 1
        voucher = Voucher(USER.address, PROVIDER.address, claimed, sequence, ZERO_HASH)
        signer = USER if key.signer == USER.address else SESSION
        r, vs = to_compact(signer.sign_digest(RULES.domain.digest(voucher.struct_hash())))
        claim = VoucherClaim(
            key.user, key.signer, claimed, claimed, sequence, sequence, ZERO_HASH, r, vs
        )
        return rules.apply_settle(
            self.ledger, PROVIDER.address, PROVIDER.address, [claim], ZERO_HASH
        )

    def get_facts(self, books: dict[tuple[str, str], UserBook] | None = None) -> UserFacts:
        mine = self.ledger.providers.get(USER.address, rules.Provider())
        funds = {(provider, signer): of for provider, signer, of in self.chain.list_funds()}
        return UserFacts(
            USER.address,
            self.now_s,
            HOUR_S,
            START_BLOCK,
            self.wallet,
            self.ledger.accounts.get(USER.address, 0),
            mine.stake,
            mine.unbonding_until_s,
            funds,
            books or {},
            {},
            tuple(self.chain.list_journal()),
            tuple(self.chain.list_transfers(self.block)),
            self.chain.get_account(),
        )


def pack(result: Judgement) -> int:
    """A settlement's result as the contract packs it; docs/protocol.md, "Claims on chain"."""
    key = get_sub_account_key(*result.sub_account)
    prefix = int.from_bytes(key[:15], "big")
    low = result.sequence % 2**32
    return prefix << 136 | int(result.status) << 128 | low << 96 | result.paid


CALLS = {
    **dict.fromkeys(("receive", "deposit", "fund", "claim", "settle", "wait"), 2),
    **dict.fromkeys(("refund", "stake", "unbond", "leave"), 2),
    **dict.fromkeys(("send", "to itself", "withdraw", "cancel", "stay"), 1),
}
"""How often each call is drawn, in proportion."""

calls = st.lists(
    st.tuples(
        st.sampled_from([c for c, n in CALLS.items() for _ in range(n)]),
        st.sampled_from(list(SIGNERS)),
        st.integers(0, 120),
    ),
    min_size=20,
    max_size=50,
)
shares = st.integers(0, 130)


def play(before: int, made: list[tuple[str, str, int]]) -> World:
    world = World(before)
    begun = [("receive", "user", 120), ("deposit", "user", 120)]
    begun += [("fund", "user", 30), ("fund", "session", 50), ("refund", "session", 40)]
    for name, signer, part in [*begun, *made]:
        world.do(name, signer, part)
    return world


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1_000), calls, shares, shares)
def test_a_users_places_hold_every_unit_once(before, made, spent, at_work):
    world = play(before, made)
    ledger = world.ledger
    books = {
        (key.provider, key.signer): UserBook(
            acknowledged=of.sequence,
            acknowledged_fee=of.claimed + of.balance * spent // 100,
            in_flight=3,
            in_flight_fee=of.balance * at_work // 100,
        )
        for key, of in ledger.sub_accounts.items()
    }
    facts = world.get_facts(books)
    assert find_differences(facts) == []
    places = get_user_places(facts)

    stake = ledger.providers.get(USER.address, rules.Provider()).stake
    sums = sum_by_place(places)
    assert sums["wallet"] == world.wallet
    assert sums["account"] == ledger.accounts.get(USER.address, 0)
    assert sums.get("stake", 0) == stake
    for key, of in ledger.sub_accounts.items():
        parts = [p for p in places if (p.provider, p.signer) == (key.provider, key.signer)]
        assert sum(part.amount for part in parts) == of.balance
        assert len({part.place for part in parts}) == len(parts) == 4
    inside = sum(of.balance for of in ledger.sub_accounts.values())
    assert sum(sums.values()) == world.wallet + sums["account"] + inside + stake

    transactions = {entry.transaction_hash for entry in (*facts.journal, *facts.transfers)}
    for place in places:
        assert place.amount >= 0
        assert place.why, place
        assert place.until, place
        assert bool(place.command) == (
            place.amount > 0 and place.place not in ("reserved", "accrued")
        )
        # the transactions that put the units there cover each once, and are real ones
        assert sum(origin.amount for origin in place.origins) == place.amount
        assert all(origin.amount > 0 for origin in place.origins)
        assert {o.transaction_hash for o in place.origins} <= transactions | {""}
        if place.place != "wallet":  # all else came through events that we read
            assert all(origin.event != BEFORE for origin in place.origins), place
    (wallet,) = [place for place in places if place.place == "wallet"]
    old = sum(origin.amount for origin in wallet.origins if origin.event == BEFORE)
    assert old <= before
    received = sum(int(e.amount) for e in facts.transfers if e.name == "Received")
    assert old == max(0, world.wallet - received)


@settings(max_examples=200, deadline=None)
@given(calls, shares, shares, shares)
def test_what_a_provider_earned_is_settled_or_in_one_place(made, owed_part, sent_part, at_work):
    world = play(0, made)
    owed = []
    for (provider, signer), of in world.get_facts().funds.items():
        assert provider == PROVIDER.address
        more = (of.balance + 50) * owed_part // 100
        owed.append(
            OwedSubAccount(
                USER.address, signer, of.claimed + more, of, of.claimed + more * sent_part // 100
            )
        )
    earned = sum(of.cumulative_fee for of in owed)
    facts = ProviderFacts(
        "provider", PROVIDER.address, STRANGER, 1, world.now_s, 11, 22, 0, False, earned, at_work,
        owed,
    )  # fmt: skip
    money = get_provider_money(facts)
    sums = sum_by_place(money.places)
    assert money.settled == sum(of.claimed for of in world.ledger.sub_accounts.values())
    assert money.settled + sums["sent"] + sums["claimable"] + sums["uncovered"] == earned
    held = sum(of.balance for of in world.ledger.sub_accounts.values())
    assert sums["sent"] + sums["claimable"] <= held
    assert (sums["wallet"], sums["stake"]) == (11, 22)
    for place in money.places:
        assert place.amount >= 0
        assert place.why, place
        assert place.until, place


def test_a_refund_that_nobody_completes_is_an_alarm_with_the_command_that_does():
    world = play(0, [])
    (refund,) = [p for p in get_user_places(world.get_facts()) if p.place == "refund" and p.amount]
    assert refund.unlock_time_s == world.now_s + HOUR_S
    assert refund.until.startswith("its lock ends, in 1 h")
    assert refund.command.endswith(f"--cancel --signer {SESSION.address}")

    world.now_s += HOUR_S + REFUND_GRACE_S
    assert find_user_alarms(world.get_facts(), []) == ()
    world.now_s += 1
    (alarm,) = find_user_alarms(world.get_facts(), [])
    assert (alarm.code, alarm.amount) == ("refund_overdue", refund.amount)
    assert alarm.since_s == refund.unlock_time_s
    expected = f"hanse account refund {PROVIDER.address} --claim --signer {SESSION.address}"
    assert alarm.command == expected
    world.do("claim", "session", 0)
    assert find_user_alarms(world.get_facts(), []) == ()


def test_a_wallet_says_what_it_held_before_and_who_sent_the_rest():
    world = World(before=40)
    world.transfer(STRANGER, USER.address, 100)
    world.transfer(USER.address, STRANGER, 30)
    (wallet, *_) = get_user_places(world.get_facts())
    assert [(o.amount, o.event) for o in wallet.origins] == [(100, "Received"), (10, BEFORE)]
    assert wallet.origins[-1].block_number == START_BLOCK
    world.wallet -= 80  # the asset says less than its own transfers make
    assert "transfers since block 100" in find_differences(world.get_facts())[0]


def test_compensation_for_a_fraud_is_in_the_account_with_its_proof():
    world = World()
    fields = {
        "user": USER.address,
        "provider": PROVIDER.address,
        "signer": USER.address,
        "sequence": 3,
        "claimed": 10,
        "cumulative_fee": 4,
        "loss": 6,
        "compensation": 5,
        "reporter": STRANGER,
    }
    world.fold("Escrow", "OverclaimProven", fields)
    accounts = {USER.address: 5}
    world.ledger = Ledger(RULES, accounts=accounts, providers=world.ledger.providers)
    facts = world.get_facts()
    assert find_differences(facts) == []
    (_, account, *_) = get_user_places(facts)
    assert [(o.amount, o.event) for o in account.origins] == [(5, "OverclaimProven")]


def make_provider_facts(owed: OwedSubAccount, now_s: int, **changed: Any) -> ProviderFacts:
    facts = {
        "name": "lubeck",
        "provider": PROVIDER.address,
        "paid_to": PROVIDER.address,
        "block": 1,
        "now_s": now_s,
        "wallet": 0,
        "stake": 100,
        "unbonding_until_s": 0,
        "condemned": False,
        "earned": owed.cumulative_fee,
        "at_work": 0,
        "owed": [owed],
        "refunds": [(owed.user, owed.signer, owed.funds)] if owed.funds.pending_refund else [],
        "schedule_s": 86_400.0,
        "margin_s": 3_600.0,
    }
    return ProviderFacts(**{**facts, **changed})


@pytest.mark.parametrize(
    ("owed", "changed", "expected"),
    [
        pytest.param({"balance": 50}, {}, [], id="in time"),
        pytest.param(
            {"balance": 50}, {"now_s": 86_400 + SETTLEMENT_GRACE_S + 1_001},
            [("settlement_overdue", 10)], id="later than the schedule",
        ),
        pytest.param(
            {"balance": 0}, {"now_s": 86_400 + SETTLEMENT_GRACE_S + 1_001}, [],
            id="nothing there to claim",
        ),
        pytest.param(
            {"balance": 50}, {"now_s": 86_400 + SETTLEMENT_GRACE_S + 1_001, "minimum": 11}, [],
            id="less than settling is worth",
        ),
        pytest.param(
            {"balance": 50, "refund": 45, "unlock_s": 3_000}, {"now_s": 1_500},
            [("claim_at_risk", 5)], id="a refund would take it",
        ),
        pytest.param(
            {"balance": 50, "refund": 40, "unlock_s": 3_000}, {"now_s": 1_500}, [],
            id="a refund leaves enough",
        ),
        pytest.param(
            {"balance": 50, "refund": 45, "unlock_s": 9_000}, {"now_s": 1_500}, [],
            id="the refund is far",
        ),
        pytest.param(
            {"balance": 50, "refund": 40, "unlock_s": 3_000},
            {"now_s": 3_001 + REFUND_GRACE_S}, [("refund_overdue", 40)],
            id="a refund that the broker forgot",
        ),
        pytest.param(
            {"balance": 50}, {"unbonding_until_s": 5, "now_s": 6 + REFUND_GRACE_S},
            [("unbonding_overdue", 100)], id="a stake that lies there",
        ),
        pytest.param(
            {"balance": 50, "claimed": 25}, {}, [("books_differ", 15)], id="an old copy",
        ),
    ],
)  # fmt: skip
def test_a_providers_alarms(owed, changed, expected):
    funds = SubAccountFunds(
        owed["balance"], owed.get("claimed", 0), 0, owed.get("refund", 0), owed.get("unlock_s", 0)
    )
    of = OwedSubAccount(USER.address, USER.address, 10, funds, 0, 1_000)
    money = get_provider_money(make_provider_facts(of, **{"now_s": 1_100, **changed}))
    assert [(alarm.code, alarm.amount) for alarm in money.alarms] == expected
    for alarm in money.alarms:
        assert alarm.code in ALARM_CODES
        assert not alarm.command or alarm.command.endswith(" --name lubeck")
    assert sum(sum_by_code(money.alarms).values()) == len(expected)


def test_the_newest_units_are_the_last_to_be_spent():
    origins = tuple(Origin(amount, "Funded", f"0x{amount}", amount) for amount in (30, 20, 10))
    parts = split_origins(origins, [5, 40, 0, 15])
    assert [[(o.amount, o.block_number) for o in part] for part in parts] == [
        [(5, 30)],
        [(25, 30), (15, 20)],
        [],
        [(5, 20), (10, 10)],
    ]


def test_nobody_is_the_zero_address():
    """A mint comes from it, and is a transfer like any other."""
    world = World()
    world.transfer(ZERO_ADDRESS, USER.address, 5)
    (wallet, *_) = get_user_places(world.get_facts())
    assert [o.amount for o in wallet.origins] == [5]
    assert to_bytes(wallet.transaction_hash)


def test_what_disputes_holds_for_a_wallet_is_among_its_places():
    nothing = UserFacts(USER.address, 1_000, HOUR_S, START_BLOCK, 0, 0)
    assert {place.place for place in get_user_places(nothing)} == {"wallet", "account"}
    facts = UserFacts(
        USER.address, 1_000, HOUR_S, START_BLOCK, 5, 7, auditing=100_000_000, credit=30
    )
    places = {place.place: place for place in get_user_places(facts)}
    assert sum(place.amount for place in places.values()) == 100_000_042
    assert (places["credit"].amount, places["auditing"].amount) == (30, 100_000_000)
    assert places["credit"].command == "hanse disputes withdraw"
    assert places["auditing"].command == "hanse disputes leave"
