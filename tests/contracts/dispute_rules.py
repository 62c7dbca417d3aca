"""The part of the stateful test that accuses, serves honestly, and records.

`PROVIDERS` of the machine do what they like; the honest provider numbers its receipts, lets its
sums only rise, and claims exactly its last one. Everybody accuses everybody.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from hanse.protocol import ledger as rules
from hanse.protocol.ledger import Effect, Ledger, Step, SubAccountId, VoucherClaim
from hanse.protocol.ledger.dispute_invariants import Commit
from hanse.protocol.messages import Receipt, SignedReceipt, Voucher
from hanse.protocol.signatures import to_bytes, to_compact
from tests.contracts.dispute_parts import HASH, make_receipt, to_row
from tests.contracts.local_evm import Hanse, Key, key_of

HONEST = key_of("honest provider")
HONEST_KEY = key_of("honest provider's receipt key")
KEYS = {
    key.address: key
    for key in (HONEST_KEY, *(key_of(f"receipt key {number}") for number in range(3)))
}

users = st.sampled_from([key_of(f"user {number}") for number in range(2)])
signers = st.sampled_from([key_of("user 0"), key_of("session key")])
cheats = st.sampled_from([key_of("provider 0"), key_of("provider 0"), key_of("provider 1")])
accused = st.sampled_from(
    [key_of("provider 0"), key_of("provider 0"), key_of("provider 1"), HONEST]
)
reporters = st.sampled_from([key_of("user 0"), key_of("provider 1"), key_of("stranger")])
picks = st.integers(0, 2**16)
FRAUDS = [1, 1, 3, 137, 2**95]


class DisputeRules:
    """Rules and their memory; mixed into the machine, which has `both` and the ledger."""

    hanse: Hanse
    ledger: Ledger

    if TYPE_CHECKING:
        signed: dict[SubAccountId, list[VoucherClaim]]

        def both(
            self, actor: Key, apply: Callable[[], Step], function: str, *arguments: Any
        ) -> None: ...

        def settle_claims(
            self,
            caller: Key,
            provider: Key,
            claims: list[VoucherClaim],
            honest: list[VoucherClaim],
        ) -> None: ...

        def advance(self, back_s: int, seconds: int) -> None: ...

        def state_is_the_same(self) -> None: ...

        def named_invariants_hold(self) -> None: ...

    def __init__(self) -> None:
        super().__init__()
        self.receipts: dict[SubAccountId, list[SignedReceipt]] = {}
        self.cheats: frozenset[str] = frozenset()
        self.proofs: list[tuple[SignedReceipt, ...]] = []
        self.commits: dict[str, list[Commit]] = {}
        self.effects: tuple[Effect, ...] = ()

    def get_receipts(self) -> dict[SubAccountId, list[Receipt]]:
        return {key: [one.receipt for one in made] for key, made in self.receipts.items()}

    def find_cheats(self) -> None:
        self.cheats |= rules.find_cheats(self.ledger, self.get_receipts())
        assert HONEST.address not in self.cheats

    # -------------------------------------------------------------- the honest provider

    @rule(user=users, signer=signers, fees=st.lists(st.integers(0, 90), min_size=1, max_size=3))
    def serve_honestly(self, user: Key, signer: Key, fees: list[int]) -> None:
        key = SubAccountId(user.address, HONEST.address, signer.address)
        for fee in fees:
            sequence, total = self.get_last(key)
            made = make_receipt(user, HONEST, signer, sequence + 1, total + fee)
            self.sign(key, made, HONEST_KEY)

    @rule(user=users, signer=signers)
    def claim_honestly(self, user: Key, signer: Key) -> None:
        key = SubAccountId(user.address, HONEST.address, signer.address)
        sequence, total = self.get_last(key)
        voucher = Voucher(user.address, HONEST.address, total, sequence, HASH)
        r, vs = to_compact(signer.sign(self.hanse.domain.digest(voucher.struct_hash())))
        claim = VoucherClaim(
            user.address, signer.address, total, total, sequence, sequence, HASH, r, vs
        )
        self.signed.setdefault(key, []).append(claim)
        self.settle_claims(HONEST_KEY, HONEST, [claim], [claim])

    # -------------------------------------------------------------- accusations

    @rule(
        reporter=reporters,
        provider=accused,
        user=users,
        signer=signers,
        sequence_by=st.sampled_from([0, 0, 0, 1, 3, -1]),
        below=st.sampled_from([*FRAUDS, 0, -1]),
        forged=st.sampled_from([False] * 5 + [True]),
        pick=picks,
    )
    def accuse_of_overclaim(
        self,
        reporter: Key,
        provider: Key,
        user: Key,
        signer: Key,
        sequence_by: int,
        below: int,
        forged: bool,
        pick: int,
    ) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        if provider == HONEST and not forged:
            signed = self.pick(key, pick)
            if signed is None:
                return
        else:
            account = self.ledger.sub_accounts.get(key, rules.SubAccount())
            total = max(0, account.claimed - below)
            sequence = max(0, account.sequence + sequence_by)
            made = make_receipt(user, provider, signer, sequence, total)
            signed = self.sign(key, made, user if forged else self.get_key(provider, pick))
        self.accuse(reporter, signed)

    @rule(
        reporter=reporters,
        provider=accused,
        user=users,
        signer=signers,
        sequence=st.integers(0, 3),
        totals=st.tuples(*[st.sampled_from([0, 1, 90, 137, 500, 1_000, 2**96])] * 2),
        forged=st.sampled_from([False] * 5 + [True]),
        pick=picks,
        other_pick=picks,
    )
    def accuse_of_equivocation(
        self,
        reporter: Key,
        provider: Key,
        user: Key,
        signer: Key,
        sequence: int,
        totals: tuple[int, int],
        forged: bool,
        pick: int,
        other_pick: int,
    ) -> None:
        key = SubAccountId(user.address, provider.address, signer.address)
        if provider == HONEST:
            first, second = self.pick(key, pick), self.pick(key, other_pick)
            if first is None or second is None:
                return
            if forged:
                total = first.receipt.cumulative_fee + 1
                made = make_receipt(user, provider, signer, first.receipt.sequence, total)
                second = self.sign(key, made, user)
        else:
            first, second = (
                self.sign(
                    key,
                    make_receipt(user, provider, signer, sequence, total),
                    user if forged and total else self.get_key(provider, one),
                )
                for total, one in zip(totals, (pick, other_pick), strict=True)
            )
        self.accuse(reporter, first, second)

    @rule(provider=cheats, user=users, signer=signers, excess=st.sampled_from([1, 50, 400]))
    def overclaim_and_be_accused(self, provider: Key, user: Key, signer: Key, excess: int) -> None:
        """The whole cheat: one served request, a claim above its fee, and the user's proof."""
        key = SubAccountId(user.address, provider.address, signer.address)
        account = self.ledger.sub_accounts.get(key, rules.SubAccount())
        sequence, total = account.sequence + 1, account.claimed + 30
        made = make_receipt(user, provider, signer, sequence, total)
        signed = self.sign(key, made, self.get_key(provider, 0))
        maximum = total + excess
        voucher = Voucher(user.address, provider.address, maximum, sequence, HASH)
        r, vs = to_compact(signer.sign(self.hanse.domain.digest(voucher.struct_hash())))
        claim = VoucherClaim(
            user.address, signer.address, maximum, maximum, sequence, sequence, HASH, r, vs
        )
        self.signed.setdefault(key, []).append(claim)
        self.settle_claims(provider, provider, [claim], [claim])
        self.accuse(user, signed)

    @rule(
        provider=cheats,
        first_user=users,
        signer=signers,
        acts=st.lists(
            st.tuples(
                st.sampled_from(["overclaim", "again", "equivocate", "more", "wait", "burn"]),
                st.booleans(),
                st.sampled_from([1, 50, 400]),
            ),
            min_size=3,
            max_size=7,
        ),
    )
    def dispute_one_provider(
        self, provider: Key, first_user: Key, signer: Key, acts: list[tuple[str, bool, int]]
    ) -> None:
        """Proofs, replays and the window's end show what they do to one another only together."""
        for act, other, amount in acts:
            user = key_of("user 1") if other else first_user
            if act == "overclaim":
                self.overclaim_and_be_accused(provider, user, signer, amount)
            elif act == "again":
                self.accuse_again(user, len(self.proofs) - 1 - other)
            elif act == "equivocate":
                totals = (amount, 2 * amount)
                self.accuse_of_equivocation(
                    user, provider, user, signer, 1, totals, False, 0, amount
                )
            elif act == "more":
                self.accuse_of_overclaim(user, provider, user, signer, 0, amount, False, 0)
            elif act == "wait":
                self.advance(0, 3_600 if other else 0)
            else:
                self.burn_rest(user, provider)
            self.state_is_the_same()
            self.named_invariants_hold()

    @rule(reporter=reporters, pick=picks)
    def accuse_again(self, reporter: Key, pick: int) -> None:
        if self.proofs:
            self.accuse(reporter, *self.proofs[pick % len(self.proofs)])

    @rule(caller=reporters, provider=accused)
    def burn_rest(self, caller: Key, provider: Key) -> None:
        self.both(
            caller,
            lambda: rules.apply_burn_rest(self.ledger, provider.address, self.hanse.chain.now_s),
            "burn_rest",
            provider.address,
        )

    def accuse(self, reporter: Key, *signed: SignedReceipt) -> None:
        self.proofs.append(signed)
        now_s, by = self.hanse.chain.now_s, reporter.address
        arguments: list[Any] = []
        for one in signed:
            r, vs = to_compact(one.signature)
            arguments += [to_row(one.receipt), r, int.from_bytes(vs, "big")]
        if len(signed) == 1:
            self.both(
                reporter,
                lambda: rules.apply_prove_overclaim(self.ledger, by, signed[0], now_s),
                "prove_overclaim",
                *arguments,
            )
        else:
            self.both(
                reporter,
                lambda: rules.apply_prove_equivocation(
                    self.ledger, by, signed[0], signed[1], now_s
                ),
                "prove_equivocation",
                *arguments,
            )

    # -------------------------------------------------------------- records

    @rule(
        recorder=reporters,
        root=st.sampled_from(["0x" + "5a" * 32, "0x" + "5b" * 32, "0x" + "00" * 32]),
        count=st.integers(0, 3),
        fee_total=st.sampled_from([0, 7, 2**256 - 1]),
    )
    def commit(self, recorder: Key, root: str, count: int, fee_total: int) -> None:
        number = self.ledger.records.get(recorder.address, rules.RecordsHead()).number
        self.both(
            recorder,
            lambda: rules.apply_commit(self.ledger, recorder.address, root, count, fee_total),
            "commit",
            to_bytes(root),
            count,
            fee_total,
        )
        if self.ledger.records.get(recorder.address, rules.RecordsHead()).number > number:
            made = self.commits.setdefault(recorder.address, [])
            made.append(Commit(root, count, fee_total))

    # -------------------------------------------------------------- receipts

    def sign(self, key: SubAccountId, receipt: Receipt, signer: Key) -> SignedReceipt:
        """Remembered if a provider could have to answer for it."""
        digest = self.hanse.domain.digest(receipt.struct_hash())
        signed = SignedReceipt(receipt, signer.sign(digest))
        if signer.address in KEYS:
            self.receipts.setdefault(key, []).append(signed)
        return signed

    def get_key(self, provider: Key, pick: int) -> Key:
        """One of the provider's receipt keys, present or past; a stranger's if it has none."""
        owned = [
            KEYS[key]
            for key, holder in self.ledger.receipt_keys.items()
            if holder == provider.address
        ]
        return owned[pick % len(owned)] if owned else KEYS[key_of("receipt key 2").address]

    def pick(self, key: SubAccountId, number: int) -> SignedReceipt | None:
        made = self.receipts.get(key, [])
        return made[number % len(made)] if made else None

    def get_last(self, key: SubAccountId) -> tuple[int, int]:
        made = self.receipts.get(key, [])
        if not made:
            return 0, 0
        return made[-1].receipt.sequence, made[-1].receipt.cumulative_fee
