"""Both books at once, over a network that reorders and loses: Hypothesis picks the interleaving.

`SteadyUser` releases a request only when it knows that the broker will never admit it. Then no
honest request is ever refused for its voucher. `HastyUser` also releases requests that are at
work (it lost track of them); then refusals happen, but the receipts always bring it back.
"""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hanse.protocol.books import (
    ProviderBook,
    UserBook,
    apply_acknowledgement,
    apply_admission,
    apply_finish,
    apply_issue,
    apply_release,
    get_voucher_maxima,
)
from hanse.protocol.errors import RequestError

fees = st.one_of(st.integers(0, 3), st.integers(0, 60))


@dataclass
class Sent:
    """One request: what its voucher says, and where it is."""

    maximum_fee: int
    cumulative_max: int
    sequence_max: int
    released: bool = False


class BooksTogether(RuleBasedStateMachine):
    hasty = False

    def __init__(self):
        super().__init__()
        self.user, self.provider = UserBook(), ProviderBook()
        self.funded = self.funded_confirmed = 100
        self.on_the_way: list[Sent] = []
        self.at_work: list[Sent] = []
        self.receipts: list[tuple[Sent, int]] = []  # index + 1 is the sequence
        self.signed: set[tuple[int, int]] = {(0, 0)}

    def take(self, items, place):
        return items.pop(place % len(items))

    @rule(maximum_fee=fees)
    def issue(self, maximum_fee):
        try:
            book = apply_issue(self.user, maximum_fee=maximum_fee, funded=self.funded)
        except RequestError as error:
            assert error.code == "insufficient_balance"  # noqa: PT017
            assert self.user.committed + maximum_fee > self.funded
            return
        self.user = book
        sent = Sent(maximum_fee, *get_voucher_maxima(book))
        self.signed.add((sent.cumulative_max, sent.sequence_max))
        self.on_the_way.append(sent)

    @precondition(lambda self: self.on_the_way)
    @rule(place=st.integers(0, 20))
    def arrive(self, place):
        sent = self.take(self.on_the_way, place)
        try:
            self.provider = apply_admission(
                self.provider,
                cumulative_max=sent.cumulative_max,
                sequence_max=sent.sequence_max,
                maximum_fee=sent.maximum_fee,
                funded=self.funded_confirmed,
            )
        except RequestError as error:
            assert error.code == "insufficient_balance" or self.hasty  # noqa: PT017
            self.release(sent)
            return
        self.at_work.append(sent)

    @precondition(lambda self: self.on_the_way)
    @rule(place=st.integers(0, 20))
    def get_lost_until_the_deadline(self, place):
        self.release(self.take(self.on_the_way, place))

    @precondition(lambda self: self.hasty and self.at_work)
    @rule(place=st.integers(0, 20))
    def lose_track(self, place):
        self.release(self.at_work[place % len(self.at_work)])

    def release(self, sent):
        if not sent.released:
            self.user = apply_release(self.user, maximum_fee=sent.maximum_fee)
            sent.released = True

    @precondition(lambda self: self.at_work)
    @rule(place=st.integers(0, 20), share=st.integers(0, 4))
    def finish(self, place, share):
        sent = self.take(self.at_work, place)
        fee = sent.maximum_fee * share // 4
        self.provider = apply_finish(self.provider, maximum_fee=sent.maximum_fee, fee=fee)
        self.receipts.append((sent, fee))

    @precondition(lambda self: self.user.acknowledged < len(self.receipts))
    @rule()
    def acknowledge(self):
        """Receipts may arrive in any order; they count in sequence."""
        sent, fee = self.receipts[self.user.acknowledged]
        maximum_fee = None if sent.released else sent.maximum_fee
        self.user = apply_acknowledgement(self.user, maximum_fee=maximum_fee, fee=fee)

    @rule(amount=st.integers(1, 50))
    def fund(self, amount):
        self.funded += amount

    @rule()
    def confirm(self):
        self.funded_confirmed = self.funded

    @invariant()
    def what_is_owed_is_covered_by_one_signed_voucher(self):
        book = self.provider
        assert (book.cumulative_max, book.sequence_max) in self.signed
        assert book.cumulative_fee + book.reserved <= book.cumulative_max
        assert book.sequence + book.in_flight <= book.sequence_max

    @invariant()
    def nothing_is_owed_that_the_chain_does_not_hold(self):
        assert self.provider.owed_max <= self.funded_confirmed

    @invariant()
    def reservations_are_exactly_what_is_at_work(self):
        assert self.provider.in_flight == len(self.at_work)
        assert self.provider.reserved == sum(sent.maximum_fee for sent in self.at_work)
        assert self.provider.sequence == len(self.receipts)
        assert self.provider.cumulative_fee == sum(fee for _, fee in self.receipts)

    @invariant()
    def the_user_commits_exactly_what_it_does_not_know_the_end_of(self):
        unknown = [
            sent
            for sent in [
                *self.on_the_way,
                *self.at_work,
                *(sent for sent, _ in self.receipts[self.user.acknowledged :]),
            ]
            if not sent.released
        ]
        assert self.user.in_flight == len(unknown)
        assert self.user.in_flight_fee == sum(sent.maximum_fee for sent in unknown)
        assert self.user.acknowledged_fee == sum(
            fee for _, fee in self.receipts[: self.user.acknowledged]
        )

    @invariant()
    def a_user_that_knows_everything_covers_what_is_owed(self):
        if not self.hasty:
            assert self.user.committed >= self.provider.owed_max

    @invariant()
    def no_claim_goes_beyond_what_was_signed(self):
        assert self.user.highest_cumulative_max == max(signed[0] for signed in self.signed)
        assert self.provider.cumulative_fee <= self.user.highest_cumulative_max

    def teardown(self):
        """When all is delivered the books agree, and the next request is admitted."""
        while self.on_the_way:
            self.arrive(0)
        while self.at_work:
            self.finish(0, 4)
        while self.user.acknowledged < len(self.receipts):
            self.acknowledge()
        assert (self.user.in_flight, self.user.in_flight_fee) == (0, 0)
        assert self.user.acknowledged == self.provider.sequence
        assert self.user.acknowledged_fee == self.provider.cumulative_fee
        self.funded_confirmed = self.funded = self.funded + 100
        self.issue(100)
        sent = self.on_the_way.pop()
        apply_admission(
            self.provider,
            cumulative_max=sent.cumulative_max,
            sequence_max=sent.sequence_max,
            maximum_fee=100,
            funded=self.funded,
        )


class SteadyUser(BooksTogether):
    hasty = False


class HastyUser(BooksTogether):
    hasty = True


SteadyUser.TestCase.settings = HastyUser.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestSteadyUser = SteadyUser.TestCase
TestHastyUser = HastyUser.TestCase
