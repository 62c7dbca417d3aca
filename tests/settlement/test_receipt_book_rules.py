"""The SQL book beside the pure one: the same facts lead to the same books, and nothing is lost."""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hanse.protocol.books import ProviderBook, apply_admission, apply_finish
from hanse.protocol.errors import HanseError
from hanse.protocol.verify import verify_receipt_signature
from hanse.settlement import Admission, SubAccountFunds, open_receipt_book
from hanse.store import open_database
from tests.settlement.book_parts import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_KEY,
    SIGNER_KEY,
    USER,
    admit_voucher,
    outcome_of,
    sign_voucher,
)
from tests.store.postgres_server import PostgresServer

fees = st.integers(0, 50)


class BookMachine(RuleBasedStateMachine):
    """Admissions, endings, crashes and settlements in any order."""

    open_requests: Bundle[Any] = Bundle("open_requests")

    def __init__(self, url: str = ":memory:") -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = self.run(open_database(url))
        self.book = self.run(open_receipt_book(self.database, PROVIDER, DOMAIN, RECEIPT_KEY))
        self.pure = ProviderBook()
        self.open: dict[str, tuple[Admission, int]] = {}
        self.fees: list[int] = []
        self.settled = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()

    @rule(
        target=open_requests,
        maximum_fee=fees,
        slack=st.integers(-60, 60),
        ahead=st.integers(-1, 3),
        funded=st.integers(0, 400),
    )
    def admit(self, maximum_fee: int, slack: int, ahead: int, funded: int) -> Any:
        signed = sign_voucher(
            max(0, self.pure.owed_max + maximum_fee + slack),
            max(0, self.pure.sequence + self.pure.in_flight + 1 + ahead),
            maximum_fee,
        )
        refused = None
        try:
            pure = apply_admission(
                self.pure,
                cumulative_max=signed.voucher.cumulative_max,
                sequence_max=signed.voucher.sequence_max,
                maximum_fee=maximum_fee,
                funded=funded,
            )
        except HanseError as error:
            refused = error.code
        admission = None
        found = None
        try:
            admission = self.run(
                admit_voucher(
                    self.book, signed, SubAccountFunds(funded, 0), acknowledged=0, now_s=NOW_S
                )
            )
        except HanseError as error:
            found = error.code
        assert found == refused
        if admission is None:
            return None
        self.pure = pure
        self.open[admission.request_id] = (admission, maximum_fee)
        return admission.request_id

    @rule(request_id=consumes(open_requests), part=st.floats(0, 1))
    def finish(self, request_id: str | None, part: float) -> None:
        if request_id not in self.open:
            return
        admission, maximum_fee = self.open.pop(request_id)
        fee = int(maximum_fee * part)
        self.pure = apply_finish(self.pure, maximum_fee=maximum_fee, fee=fee)
        self.fees.append(fee)
        finished = self.run(self.book.finish(admission, outcome_of(fee)))
        verify_receipt_signature(finished.signed, DOMAIN, RECEIPT_KEY.address)
        again = self.run(self.book.finish(admission, outcome_of(0)))
        assert again == finished

    @rule()
    def crash(self) -> None:
        """What was at work is gone with the process."""
        receipts = self.run(self.book.recover(NOW_S))
        assert len(receipts) == len(self.open)
        for _, maximum_fee in self.open.values():
            self.pure = apply_finish(self.pure, maximum_fee=maximum_fee, fee=0)
            self.fees.append(0)
        self.open.clear()

    @rule(part=st.floats(0, 1))
    def settle(self, part: float) -> None:
        claimed = int(self.pure.cumulative_fee * part)
        self.run(self.book.apply_settled(USER, SIGNER_KEY.address, claimed))
        self.settled = max(self.settled, claimed)

    @invariant()
    def books_agree(self) -> None:
        state = self.run(self.book.find_state(USER, SIGNER_KEY.address))
        assert (state.book if state else ProviderBook()) == self.pure

    @invariant()
    def receipts_are_complete_and_in_order(self) -> None:
        page = self.run(self.book.find_receipts(USER, SIGNER_KEY.address, 0))
        if page is None:
            assert not self.fees
            return
        assert len(page.receipts) == len(self.fees) == self.pure.sequence
        assert set(page.in_flight) == set(self.open)

    @invariant()
    def reserved_and_fees_are_conserved(self) -> None:
        assert self.pure.reserved == sum(most for _, most in self.open.values())
        assert self.pure.cumulative_fee == sum(self.fees)

    @invariant()
    def due_is_what_is_not_settled(self) -> None:
        due = self.run(self.book.read_due_claims())
        assert sum(claim.due for claim in due) == self.pure.cumulative_fee - self.settled
        for claim in due:
            assert claim.cumulative_fee <= claim.cumulative_max
            assert claim.sequence <= claim.sequence_max


BookMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestBookRules = BookMachine.TestCase


def test_book_rules_on_postgresql(postgres_server: PostgresServer) -> None:
    run_state_machine_as_test(
        lambda: BookMachine(postgres_server.create_database()),
        settings=settings(max_examples=6, stateful_step_count=25, deadline=None),
    )
