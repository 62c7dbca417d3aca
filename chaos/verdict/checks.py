"""What must be true after every run, once all is healed and quiet.

    lost, twice = verify_run(world, brokers, users, recorder)

1. **Units**: every base unit has a place, contracts and reference ledger agree on it.
2. **Books**: both sides of each sub-account have the same receipts, sums and nothing in flight.
   What may differ: the user's book may hold released vouchers that no broker ever saw, and receipts
   that it could not compare (`unverified`: the answer's end was lost, the charge is the delivered
   prefix). A request that was refused and then delivered once more, by a network that doubles
   it, may be admitted the second time: a refusal leaves no trace at the broker. Its receipt is
   counted, at most the maximum fee, and stands as `mismatched`, since a broker that refuses and
   charges looks the same.
3. **Pay**: what was claimed is what was earned, by receipts at the offer's price, and never above
   the highest voucher that was signed.
4. **Service**: no request id was worked on twice, and what was charged was worked on.
5. **Refunds**: each completed within `REFUND_LATE_S_MAX` of its unlocking.
6. **Transactions**: each is final; confirmed ones stand on the final branch once, refused ones not.
7. **Records**: every root on chain is that of its leaves, and every leaf a receipt that both sides
   hold; every receipt of both sides is recorded, with a proof.
8. **Trust**: nobody was called dishonest and nobody proven to be; nobody here is. Users look for
   cheats and would raise a dispute by themselves: none is ever found.
9. **Traces**: what is noted as stored is there under its hash, opens with its side's key, and holds
   what was signed for; nothing is left in the store that no note knows; a leaf names no other.
"""

import contextlib
from collections.abc import Sequence

from chaos.market.buyers import UserComponent
from chaos.market.components import Component
from chaos.market.recording import RecorderComponent, verify_records
from chaos.market.sellers import PRICES, BrokerComponent
from chaos.verdict.books import (
    OnChain,
    ProviderSide,
    UserSide,
    read_disputes,
    read_entries,
    read_provider,
    read_user,
    view_sub_account,
)
from chaos.verdict.reference import History, count_lost_units, replay
from chaos.verdict.traces import verify_traces
from chaos.world import World
from hanse.chain.storage import TransactionState
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.wire import decode_voucher_header

REFUND_LATE_S_MAX = 3_600
"""By the chain's clock: one lock time more, two minutes of everybody's: brokers and nodes may be
down, and a settlement has to be confirmed first."""


def verify_run(
    world: World,
    brokers: Sequence[BrokerComponent],
    users: Sequence[UserComponent],
    recorder: RecorderComponent,
) -> tuple[int, int]:
    """Check everything; violations go to the world. Returns lost units, requests served twice."""
    history = replay(world)
    lost = count_lost_units(world, history)
    if lost:
        world.violate(f"{lost} of {world.minted} base units are lost")
    for user in users:
        for broker in brokers:
            _verify_pair(world, user, broker)
        for dispute in read_disputes(user):
            world.violate(f"{user.name} found a cheat where nobody cheats: {dispute}")
    twice = [answer for answer, count in world.served.items() if count > 1]
    for answer in twice[:5]:
        world.violate(f"{answer} was served {world.served[answer]} times")
    for delay_s in history.refund_delays_s:
        if delay_s > REFUND_LATE_S_MAX:
            world.violate(f"a refund was completed {delay_s} s after it unlocked")
    components = [*brokers, *users, recorder]
    for component in components:
        _verify_transactions(world, component)
    _verify_senders(world, components, history)
    verify_records(world, recorder, history.roots, _list_shared(brokers, users))
    verify_traces(world, brokers, users, recorder)
    _tally(world, history)
    return lost, len(twice)


def _list_shared(
    brokers: Sequence[BrokerComponent], users: Sequence[UserComponent]
) -> list[SignedReceipt]:
    """The receipts that both sides hold."""
    found = []
    for user in users:
        for broker in brokers:
            ours = read_user(user, broker.owner.address)
            theirs = read_provider(broker, user.key.address)
            if ours is not None and theirs is not None:
                found += [signed for signed in theirs.receipts if signed in ours.receipts]
    return found


def _verify_pair(world: World, user: UserComponent, broker: BrokerComponent) -> None:
    address, provider = user.key.address, broker.owner.address
    ours, theirs = read_user(user, provider), read_provider(broker, address)
    chain = view_sub_account(world, address, provider)
    name = f"{user.name} / {broker.name}"
    if theirs is None:
        if chain.claimed or (ours is not None and ours.acknowledged):
            world.violate(f"{name}: the broker has no book, claimed are {chain.claimed}")
        return
    if ours is None:
        world.violate(f"{name}: the broker has a book, the user has none")
        return
    world.tallies["receipts"] += theirs.sequence
    world.tallies["fees"] += theirs.cumulative_fee
    for problem in (
        *_list_book_problems(ours, theirs, _list_doubled(world)),
        *_list_pay_problems(ours, theirs, chain),
        *_list_receipt_problems(world, theirs),
    ):
        world.violate(f"{name}: {problem}")


def _list_doubled(world: World) -> set[str]:
    """Requests that the network delivered twice, by request id."""
    found = set()
    for authorization in world.network.doubled:
        with contextlib.suppress(HanseError):  # a query, or an application's
            found.add(decode_voucher_header(authorization).header.request_id)
    return found


def _list_book_problems(ours: UserSide, theirs: ProviderSide, doubled: set[str]) -> list[str]:
    found = []
    if (theirs.in_flight, theirs.reserved) != (0, 0):
        found.append(f"the broker has {theirs.in_flight} at work, {theirs.reserved} reserved")
    if (ours.in_flight, ours.in_flight_fee, ours.held) != (0, 0, 0):
        found.append(f"the user has {ours.in_flight} in flight, {ours.held} held back")
    counted = (ours.acknowledged, ours.acknowledged_fee)
    if counted != (theirs.sequence, theirs.cumulative_fee):
        found.append(
            f"the user counts {counted}, the broker {theirs.sequence, theirs.cumulative_fee}"
        )
    if list(ours.receipts) != theirs.receipts:
        found.append("the two books hold different receipts")
    if ours.disputed or ours.conflicts:
        found.append(f"disputed: {ours.disputed!r}, {ours.conflicts} conflicts")
    for kind, why, request_id in ours.verifications:
        is_second = request_id in doubled and why.startswith("it refused this request")
        if kind not in ("verified", "unverified") and not is_second:
            found.append(f"the receipt of request {request_id} is {kind}: {why}")
    admitted = {served.request_id for served in theirs.requests}
    strange = admitted - ours.states.keys()
    if strange:
        found.append(f"{len(strange)} requests were admitted that nobody signed for")
    for request_id, state in ours.states.items():
        if state == "released" and request_id in admitted:
            found.append(f"request {request_id} is released here and admitted there")
    return found


def _list_pay_problems(ours: UserSide, theirs: ProviderSide, chain: OnChain) -> list[str]:
    found = []
    if chain.claimed > ours.highest_cumulative_max:
        found.append(f"claimed {chain.claimed}, signed at most {ours.highest_cumulative_max}")
    if chain.claimed > theirs.cumulative_fee:
        found.append(f"claimed {chain.claimed}, earned {theirs.cumulative_fee}")
    if chain.claimed < theirs.cumulative_fee:
        found.append(
            f"earned {theirs.cumulative_fee}, claimed only {chain.claimed} with "
            f"{chain.balance} left"
        )
    if theirs.settled_fee != chain.claimed:
        found.append(f"the broker's book has {theirs.settled_fee} settled, not {chain.claimed}")
    return found


def _list_receipt_problems(world: World, theirs: ProviderSide) -> list[str]:
    found = []
    running = 0
    for number, signed in enumerate(theirs.receipts, 1):
        receipt = signed.receipt
        running += receipt.fee
        if (receipt.sequence, receipt.cumulative_fee) != (number, running):
            found.append(f"receipt {number} says {receipt.sequence}, {receipt.cumulative_fee}")
        if receipt.fee != _get_price(signed):
            found.append(f"receipt {number} costs {receipt.fee}, priced {_get_price(signed)}")
    if running != theirs.cumulative_fee:
        found.append(f"fees add up to {running}, the book has {theirs.cumulative_fee}")
    for served in theirs.requests:
        if served.receipt is None:
            found.append(f"request {served.request_id} has no receipt")
            continue
        fee = served.receipt.receipt.fee
        if fee > served.maximum_fee:
            found.append(f"a fee of {fee} above its maximum {served.maximum_fee}")
        if fee and not world.served[f"chatcmpl-{served.request_id[2:34]}"]:
            found.append(f"request {served.request_id} costs {fee} and was never worked on")
    return found


def _get_price(signed: SignedReceipt) -> int:
    """Price x tokens, rounded up; 0 without an output token."""
    usage = signed.receipt.usage
    if usage.output_tokens == 0:
        return 0
    total = PRICES.input_per_mtok * usage.input_tokens
    total += PRICES.cached_per_mtok * usage.cached_tokens
    total += PRICES.output_per_mtok * usage.output_tokens
    return -(-total // 1_000_000)


def _verify_transactions(world: World, component: Component) -> None:
    chain = world.chain
    for entry in read_entries(component):
        what = f"{component.name}: {entry.key} ({entry.call.label}) is {entry.state}"
        mined = [
            found
            for attempt in entry.attempts
            if (found := chain.find_mined(attempt.hash, chain.head)) is not None
        ]
        succeeded = [block.ran[index].succeeded for block, index in mined]
        if entry.state is TransactionState.CONFIRMED:
            right = succeeded == [True]
        elif entry.state is TransactionState.FAILED:
            right = succeeded in ([], [False])
        else:
            right = False
        if not right:
            world.violate(f"{what}, mined {len(mined)} times, succeeded {succeeded}")


def _verify_senders(world: World, components: Sequence[Component], history: History) -> None:
    """Nothing stands on chain that no outbox knows."""
    known = {
        attempt.hash
        for component in components
        for entry in read_entries(component)
        for attempt in entry.attempts
    }
    for sender, hashes in history.sent_by.items():
        for strange in set(hashes) - known:
            world.violate(f"transaction {strange} of {sender} is in no outbox")


def _tally(world: World, history: History) -> None:
    world.tallies["blocks"] = world.chain.head.number
    world.tallies["transactions"] = sum(map(len, history.sent_by.values()))
    world.tallies["refunds"] = len(history.refund_delays_s)
    world.tallies["refund_late_s_max"] = max(history.refund_delays_s, default=0)
    world.tallies["answers_worked_on"] = len(world.served)
