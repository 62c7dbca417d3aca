"""The broker's smaller parts: unknown sub-accounts, offers, sealing, slots, a broken book."""

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.engines import ModelDescription, ModelFile
from hanse.engines.echo_engine import EchoEngine, Settings
from hanse.protocol import merkle
from hanse.protocol.errors import InvariantError, RequestError, TransientError
from hanse.protocol.hashing import hash_response
from hanse.protocol.limits import ANSWER_RETAINED_BYTES_MAX
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import ZERO_HASH, to_bytes, to_hex
from hanse.provider import IndexedChainView, OfferBook, Service, build_offer, sign_offer
from hanse.provider.chain_view import ABSENT_KEPT_S, LOOKUPS_PER_S_MAX
from hanse.provider.offers import REPLACED_KEPT_S, get_manifest_root
from hanse.provider.sealing import UNHASHED_BYTES_MAX, SentBytes, seal_answer
from hanse.settlement import SubAccountFunds
from hanse.settlement.chain_state.sub_account_fold import encode_funds, get_document_key
from tests.provider.broker_parts import (
    DOMAIN,
    PROVIDER,
    RECEIPT_KEY,
    SIGNER_KEY,
    USER,
    selling,
)


class Chain:
    """Answers look-ups of sub-accounts, and counts them."""

    def __init__(self):
        self.asked = 0
        self.now = 0.0
        self.funds = SubAccountFunds(0, 0)
        self.fails = False

    async def fetch(self, user, signer):
        self.asked += 1
        if self.fails:
            raise TransientError("chain_unavailable", "the node is away")
        return self.funds

    def view(self):
        return IndexedChainView(self.fetch, lambda: self.now)


async def test_unknown_sub_account_is_looked_up_once_and_then_known():
    chain = Chain()
    chain.funds = SubAccountFunds(50, 0)
    view = chain.view()
    assert view.find_funds(USER, SIGNER_KEY.address) is None
    assert await view.fetch_funds(USER, SIGNER_KEY.address) == chain.funds
    assert view.find_funds(USER, SIGNER_KEY.address) == chain.funds
    later = SubAccountFunds(40, 10, 1)
    key = get_document_key(USER, SIGNER_KEY.address)
    view.on_change({key: encode_funds(later)}, None)
    assert view.find_funds(USER, SIGNER_KEY.address) == later


async def test_absent_sub_account_is_not_asked_for_again_for_a_while():
    chain = Chain()
    view = chain.view()
    for _ in range(5):
        assert await view.fetch_funds(USER, SIGNER_KEY.address) is None
    assert chain.asked == 1
    chain.now += ABSENT_KEPT_S
    await view.fetch_funds(USER, SIGNER_KEY.address)
    assert chain.asked == 2


async def test_lookups_are_bounded_over_all_callers():
    chain = Chain()
    view = chain.view()
    users = ["0x" + f"{number:040x}" for number in range(100)]
    for user in users:
        await view.fetch_funds(user, SIGNER_KEY.address)
    assert chain.asked == LOOKUPS_PER_S_MAX
    chain.now += 1
    for user in users[50:]:
        await view.fetch_funds(user, SIGNER_KEY.address)
    assert chain.asked == 2 * LOOKUPS_PER_S_MAX


async def test_node_that_is_away_makes_no_one_known():
    chain = Chain()
    chain.fails = True
    assert await chain.view().fetch_funds(USER, SIGNER_KEY.address) is None


async def make_offer(engine, revision, valid_until=10_000, prices=None):
    service = Service(1, engine, prices or Prices(1, 1, 1))
    offer = await build_offer(
        service,
        provider=PROVIDER,
        endpoints=("http://broker.test",),
        encryption_key=ZERO_HASH,
        valid_until=valid_until,
        revision=revision,
    )
    return sign_offer(offer, DOMAIN, RECEIPT_KEY), service


async def test_replaced_offer_is_honoured_for_a_while_and_an_ended_one_is_not():
    engine = EchoEngine(Settings())
    await engine.start()
    now = [1_000.0]
    book = OfferBook(lambda: now[0])
    old = book.put(*await make_offer(engine, 1))
    new = book.put(*await make_offer(engine, 2, prices=Prices(2, 2, 2)))
    assert book.list_current() == [new]
    assert book.get_in_force(old.offer_hash).signed == old.signed
    now[0] += REPLACED_KEPT_S + 1
    with pytest.raises(RequestError) as gone:
        book.get_in_force(old.offer_hash)
    assert gone.value.code == "offer_changed"
    assert gone.value.details["offers"] == [new.offer_hash]
    now[0] = 10_000
    with pytest.raises(RequestError):
        book.get_in_force(new.offer_hash)


async def test_no_offer_is_built_whose_cached_input_is_dearer():
    with pytest.raises(RequestError, match="cached input at 2, dearer than input at 1"):
        await make_offer(EchoEngine(Settings()), 1, prices=Prices(1, 2, 3))


def test_manifest_root_covers_names_and_bytes_and_not_the_order():
    files = [
        ModelFile(name=name, path="", size_bytes=1, sha256=digit * 64)
        for name, digit in (("b", "1"), ("a", "2"))
    ]
    root = get_manifest_root(ModelDescription(model="m", quantisation="Q4_0", files=tuple(files)))
    assert root == get_manifest_root(
        ModelDescription(model="m", quantisation="Q4_0", files=tuple(reversed(files)))
    )
    values = [b"a\x00" + bytes.fromhex("2" * 64), b"b\x00" + bytes.fromhex("1" * 64)]
    assert root == to_hex(merkle.get_root(values))
    other = msgspec.structs.replace(files[0], sha256="3" * 64)
    assert root != get_manifest_root(
        ModelDescription(model="m", quantisation="Q4_0", files=(other, files[1]))
    )
    assert get_manifest_root(ModelDescription(model="m", quantisation="unknown")) == ZERO_HASH


def test_sealed_answer_opens_with_its_key_and_request_only():
    key, request_id, other = b"k" * 32, "0x" + "0a" * 32, "0x" + "0b" * 32
    sealed = seal_answer(key, request_id, b"the answer")
    nonce, rest = sealed[:12], sealed[12:]
    assert AESGCM(key).decrypt(nonce, rest, to_bytes(request_id)) == b"the answer"
    for wrong_key, wrong_id in ((b"x" * 32, request_id), (key, other)):
        with pytest.raises(InvalidTag):
            AESGCM(wrong_key).decrypt(nonce, rest, to_bytes(wrong_id))
    assert seal_answer(key, other, b"the answer")[:12] != nonce


def test_sent_bytes_hash_everything_and_keep_the_end():
    sent, everything = SentBytes(), b""
    for number in range(40):
        frame = b"%d" % (number % 10) * (UNHASHED_BYTES_MAX // 5)
        sent.add(frame)
        everything += frame
        if number % 7 == 0:
            assert sent.get_hash_and_tail()[0] == hash_response(everything)
    assert len(everything) > ANSWER_RETAINED_BYTES_MAX
    kept = everything[-ANSWER_RETAINED_BYTES_MAX:]
    assert sent.get_hash_and_tail() == (hash_response(everything), kept)


async def test_book_that_contradicts_itself_stops_the_selling():
    async with selling() as (here, caller):

        async def broken(*args, **kwargs):
            raise InvariantError("invariant_broken", "the sums disagree")

        here.book.begin_admission = broken
        reply = await caller.send(caller.sign())
        assert (reply.status, reply.error["code"]) == (500, "invariant_broken")
        del here.book.begin_admission
        again = await caller.send(caller.sign())
        assert (again.status, again.error["code"]) == (500, "invariant_broken")
        assert (await caller.get("/health")).status == 500
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state is None
