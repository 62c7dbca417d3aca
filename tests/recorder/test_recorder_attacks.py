"""Strangers at a recorder: over real HTTP, against a chain that is only told."""

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from hanse.chain import Deployment, Key, create_key
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.limits import LEAVES_PER_COMMIT_MAX, RECORD_BODY_BYTES_MAX
from hanse.protocol.records import RecordEntry, Side
from hanse.protocol.records.wire import entry_to_json, submission_to_json
from hanse.protocol.signatures import ZERO_ADDRESS
from hanse.recorder import Recorder, RecorderLimits, RecorderSettings
from hanse.recorder.book import open_recorder_book
from hanse.recorder.metrics import RecorderMetrics
from hanse.recorder.parties import KEY_ASK_S, KEY_S, Callers, Parties
from hanse.serving import HttpServer
from hanse.settlement.records.answers import Identity
from hanse.store.sqlite import open_sqlite

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
PROVIDER, USER = "0x" + "b2" * 20, "0x" + "a1" * 20
RECEIPT, SIGNER, ATTACKER = Key(b"\x02" * 32), Key(b"\x01" * 32), Key(b"\x03" * 32)
LIMITS = RecorderLimits(
    body_time_s=0.3, entries_per_s=1.0, entries_burst=50.0, lookups_per_s=0.01, lookups_burst=5.0
)


class KnownChain:
    """One provider with a receipt key, one sub-account; counts what it is asked."""

    def __init__(self) -> None:
        self.reads = 0

    async def fetch_receipt_key(self, provider: str) -> str:
        self.reads += 1
        return RECEIPT.address if provider == PROVIDER else ZERO_ADDRESS

    async def fetch_exists(self, name: tuple[str, str, str]) -> bool:
        self.reads += 1
        return name == (USER, PROVIDER, SIGNER.address)


class SeenChain:
    """A committer that sees the chain and commits nothing."""

    block = 100

    def __init__(self) -> None:
        self.seen_at = time.monotonic()


class Place:
    """A recorder with its URL."""

    def __init__(self, url, recorder, chain, seen, book) -> None:
        self.url, self.recorder, self.chain = url, recorder, chain
        self.seen, self.book = seen, book

    async def post(self, path, body) -> tuple[int, dict]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=data) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def get(self, path) -> tuple[int, dict]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.json(content_type=None)

    def sign(self, side, party, key, *entries) -> dict:
        identity = Identity(side, party, key, DOMAIN)
        return submission_to_json(identity.sign(self.recorder.address, entries, int(time.time())))


@pytest.fixture
async def place(tmp_path: Path):
    async with open_place(tmp_path, LIMITS) as made:
        yield made


@contextlib.asynccontextmanager
async def open_place(folder: Path, limits: RecorderLimits):
    database = await open_sqlite(folder / "recorder.db")
    key, chain, seen = create_key(), KnownChain(), SeenChain()
    book = await open_recorder_book(database, key.address, DOMAIN, "0x" + "dd" * 20)
    recorder = Recorder(
        key=key,
        domain=DOMAIN,
        book=book,
        parties=Parties(chain.fetch_receipt_key, chain.fetch_exists, limits, time.monotonic),
        committer=seen,
        metrics=RecorderMetrics(),
        interval_blocks=10,
        promise_blocks=40,
        limits=limits,
    )
    server = HttpServer.bind("127.0.0.1", 0)
    await server.start(recorder)
    yield Place(server.url, recorder, chain, seen, book)
    await server.stop()
    await database.close()


def make_entry(sequence=1, **changes) -> RecordEntry:
    entry = RecordEntry(USER, PROVIDER, SIGNER.address, sequence, "0x" + "d1" * 32, 5)
    return msgspec.structs.replace(entry, **changes)


async def test_the_honest_way(place):
    status, answer = await place.post(
        "/hanse/v1/records", place.sign(Side.PROVIDER, PROVIDER, RECEIPT, make_entry())
    )
    assert status == 200
    assert answer["entries"] == [{"state": "waiting", "reason": "missing_at_user"}]
    assert answer["held"]["kind"] == "held"
    status, answer = await place.post(
        "/hanse/v1/records", place.sign(Side.USER, SIGNER.address, SIGNER, make_entry())
    )
    assert (status, answer["entries"][0]["state"]) == (200, "matched")
    assert answer["matched"]["block"] == 140
    assert answer["held"] is None


@pytest.mark.parametrize(
    ("side", "party", "key", "entry", "status", "code"),
    [
        # a stranger that speaks for a provider, for a signer, or as a provider that is none
        (Side.PROVIDER, PROVIDER, ATTACKER, make_entry(), 401, "signature_invalid"),
        (Side.USER, SIGNER.address, ATTACKER, make_entry(), 401, "signature_invalid"),
        (
            Side.PROVIDER,
            ATTACKER.address,
            ATTACKER,
            make_entry(provider=ATTACKER.address),
            401,
            "signature_invalid",
        ),
        # a signer with a sub-account that was never funded
        (
            Side.USER,
            ATTACKER.address,
            ATTACKER,
            make_entry(signer=ATTACKER.address),
            402,
            "sub_account_unknown",
        ),
        # a provider that names a sub-account of another one, or that there is not
        (Side.PROVIDER, PROVIDER, RECEIPT, make_entry(provider=USER), 422, "unprocessable"),
        (
            Side.PROVIDER,
            PROVIDER,
            RECEIPT,
            make_entry(signer=ATTACKER.address),
            402,
            "sub_account_unknown",
        ),
    ],
)
async def test_a_stranger_stores_nothing(place, side, party, key, entry, status, code):
    found, answer = await place.post("/hanse/v1/records", place.sign(side, party, key, entry))
    assert (found, answer["error"]["code"]) == (status, code)
    assert await place.book.count_waiting() == 0


async def test_unknown_parties_cannot_make_the_node_work(place):
    codes = []
    for number in range(10):
        stranger = Key(bytes([100 + number]) * 32)
        entry = make_entry(signer=stranger.address)
        body = place.sign(Side.USER, stranger.address, stranger, entry)
        codes.append((await place.post("/hanse/v1/records", body))[1]["error"]["code"])
    assert codes[-1] == "overloaded"
    assert place.chain.reads <= 5


async def test_strangers_do_not_shut_out_who_is_known():
    """Neither while their looks are used up, nor when a known key is due to be asked again."""
    chain, now = KnownChain(), [0.0]
    parties = Parties(chain.fetch_receipt_key, chain.fetch_exists, LIMITS, lambda: now[0])

    async def submit(side, party, key, *entries) -> None:
        signed = Identity(side, party, key, DOMAIN).sign(USER, entries, 0)
        await parties.verify(signed, key.address)

    await submit(Side.PROVIDER, PROVIDER, RECEIPT, make_entry())
    for number in range(10):
        stranger = Key(bytes([100 + number]) * 32)
        with pytest.raises((RequestError, TransientError)):
            await submit(Side.USER, stranger.address, stranger, make_entry(signer=stranger.address))
    now[0] = 2 * KEY_S
    reads = chain.reads
    await submit(Side.PROVIDER, PROVIDER, RECEIPT, make_entry(2))
    assert chain.reads == reads + 1, "a due key is asked for again while there is room"
    for _ in range(5):
        with pytest.raises((RequestError, TransientError)):
            await submit(Side.PROVIDER, ATTACKER.address, ATTACKER)
    now[0] = 4 * KEY_S
    await submit(Side.PROVIDER, PROVIDER, RECEIPT, make_entry(3))
    reads = chain.reads
    with pytest.raises(RequestError, match="receipt key"):
        await submit(Side.PROVIDER, PROVIDER, ATTACKER, make_entry(4))
    assert chain.reads == reads, "a key that was read just now is not read again"


async def test_bad_signatures_of_one_kind_shut_out_no_other_newcomer():
    """Strangers that claim to be providers use up looks at keys, and those of one key only."""
    chain, now = KnownChain(), [0.0]
    parties = Parties(chain.fetch_receipt_key, chain.fetch_exists, LIMITS, lambda: now[0])

    async def submit(side, party, key, *entries) -> None:
        signed = Identity(side, party, key, DOMAIN).sign(USER, entries, 0)
        await parties.verify(signed, key.address)

    # a flood in the name of one provider leaves the looks at other providers' keys
    for _ in range(50):
        with pytest.raises((RequestError, TransientError)):
            await submit(Side.PROVIDER, ATTACKER.address, ATTACKER)
    await submit(Side.PROVIDER, PROVIDER, RECEIPT)
    # a flood in the names of many leaves the looks at sub-accounts
    for number in range(50):
        with pytest.raises((RequestError, TransientError)):
            await submit(Side.PROVIDER, f"0x{number:040x}", ATTACKER)
    await submit(Side.USER, SIGNER.address, SIGNER, make_entry())
    # and a provider that was known and changed its key is asked of the looks kept for those
    now[0] += KEY_ASK_S
    parties._keys[PROVIDER] = (ATTACKER.address, now[0] + KEY_S)
    await submit(Side.PROVIDER, PROVIDER, RECEIPT, make_entry(2))


async def test_a_known_party_is_held_to_its_rate(place):
    entries = [make_entry(n) for n in range(1, 41)]
    statuses = []
    for _ in range(3):
        body = place.sign(Side.USER, SIGNER.address, SIGNER, *entries)
        statuses.append((await place.post("/hanse/v1/records", body))[0])
    assert statuses == [200, 429, 429]
    # the other side is not slowed by it
    body = place.sign(Side.PROVIDER, PROVIDER, RECEIPT, *entries)
    assert (await place.post("/hanse/v1/records", body))[0] == 200


BODIES = [
    (b"", 400),
    (b"{}", 400),
    (b"[" * 10_000, 400),
    (b"\xff\xfe", 400),
    (b'{"v":1}', 400),
    (b"x" * (RECORD_BODY_BYTES_MAX + 1), 413),
]


@pytest.mark.parametrize(
    "path", ["/hanse/v1/records", "/hanse/v1/records/unmatched", "/hanse/v1/records/proofs"]
)
@pytest.mark.parametrize(("body", "expected"), BODIES, ids=range(len(BODIES)))
async def test_malformed_bodies_are_refused(place, path, body, expected):
    status, answer = await place.post(path, body)
    assert status == expected
    assert answer["error"]["code"] in ("invalid_request", "request_too_large")


async def test_too_many_entries_and_wrong_fields_are_refused(place):
    signed = place.sign(Side.USER, SIGNER.address, SIGNER, make_entry())
    entry = entry_to_json(make_entry())
    for change in (
        {"entries": [entry] * 501},
        {"entries": [{**entry, "sequence": "0"}]},
        {"entries": [{**entry, "sequence": str(2**63)}]},
        {"entries": [{**entry, "fee": "-1"}]},
        {"entries": [{**entry, "fee": str(2**80)}]},
        {"entries": [{**entry, "receipt_digest": "0x00"}]},
        {"entries": [{**entry, "more": 1}]},
        {"side": "both"},
        {"v": 2},
        {"deadline": -1},
    ):
        status, answer = await place.post("/hanse/v1/records", {**signed, **change})
        assert (status, answer["error"]["code"]) == (400, "invalid_request"), change
    status, _ = await place.post("/hanse/v1/records/proofs", {"entries": [entry] * 501})
    assert status == 400


async def test_a_submission_is_for_one_recorder_and_two_minutes(place):
    signed = place.sign(Side.USER, SIGNER.address, SIGNER, make_entry())
    status, answer = await place.post("/hanse/v1/records", {**signed, "recorder": USER})
    assert (status, answer["error"]["code"]) == (422, "unprocessable")
    old = Identity(Side.USER, SIGNER.address, SIGNER, DOMAIN).sign(
        place.recorder.address, (make_entry(),), int(time.time()) - 300
    )
    status, answer = await place.post("/hanse/v1/records", submission_to_json(old))
    assert (status, answer["error"]["code"]) == (401, "voucher_expired")


async def test_proofs_are_only_for_who_knows_the_digest(place):
    entry = make_entry()
    for side, party, key in (
        (Side.PROVIDER, PROVIDER, RECEIPT),
        (Side.USER, SIGNER.address, SIGNER),
    ):
        await place.post("/hanse/v1/records", place.sign(side, party, key, entry))
    commit = await place.book.prepare_commit()
    await place.book.confirm_commit(commit.number, "0x" + "77" * 32, 5)
    guess = make_entry(receipt_digest="0x" + "d2" * 32)
    body = {"entries": [entry_to_json(entry), entry_to_json(guess)]}
    _, answer = await place.post("/hanse/v1/records/proofs", body)
    assert [proof is None for proof in answer["proofs"]] == [False, True]


async def test_one_caller_asks_for_a_bounded_number_of_proofs(tmp_path):
    """They need no signature, and each reads three rows."""
    limits = RecorderLimits(proofs_per_s=0.01, proofs_burst=6.0)
    async with open_place(tmp_path, limits) as place:
        body = {"entries": [entry_to_json(make_entry(number)) for number in (1, 2)]}
        found = [await place.post("/hanse/v1/records/proofs", body) for _ in range(3)]
        assert [status for status, _ in found] == [200, 200, 429]
        assert found[2][1]["error"]["code"] == "rate_limited"


def test_a_caller_is_an_address_or_half_of_one():
    now = 0.0
    limits = RecorderLimits(proofs_per_s=1.0, proofs_burst=2.0)
    callers = Callers(limits, lambda: now)
    same = [("2001:db8:0:1::1", 1), ("2001:db8:0:1:ffff::2", 2)]
    apart = [("2001:db8:0:2::1", 1), ("192.0.2.1", 1), ("192.0.2.2", 1), ("a socket", 0), None]
    for caller in (same[0], *apart):
        callers.spend_proofs(caller, 1)
    for caller in (same[1], ("::ffff:192.0.2.1", 9), *apart):
        with pytest.raises(TransientError):
            callers.spend_proofs(caller, 1)
    now = 2.0
    callers.spend_proofs(same[1], 1)


async def test_what_waits_is_shown_to_its_party_only(place):
    await place.post(
        "/hanse/v1/records", place.sign(Side.USER, SIGNER.address, SIGNER, make_entry())
    )
    for side, party, key, count in (
        (Side.USER, SIGNER.address, SIGNER, 1),
        (Side.PROVIDER, PROVIDER, RECEIPT, 1),
        (Side.USER, ATTACKER.address, ATTACKER, 0),
    ):
        _, answer = await place.post("/hanse/v1/records/unmatched", place.sign(side, party, key))
        assert len(answer["unmatched"]) == count
    status, _ = await place.post(
        "/hanse/v1/records/unmatched", place.sign(Side.PROVIDER, PROVIDER, ATTACKER)
    )
    assert status == 401


async def test_what_waits_comes_in_pages(place):
    path, signed = "/hanse/v1/records/unmatched", place.sign(Side.USER, SIGNER.address, SIGNER)
    entry = make_entry()
    await place.post(
        "/hanse/v1/records", place.sign(Side.USER, SIGNER.address, SIGNER, entry, make_entry(2))
    )
    after = f"?after={PROVIDER}.{USER}.1"
    _, answer = await place.post(path + after, signed)
    assert [one["entry"]["sequence"] for one in answer["unmatched"]] == ["2"]
    assert (answer["next"], answer["more"]) == ("", False)
    status, answer = await place.post(path + "?after=x", signed)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


async def test_nothing_is_promised_without_a_chain(place):
    place.seen.seen_at -= LIMITS.chain_silence_s + 1
    status, answer = await place.post(
        "/hanse/v1/records", place.sign(Side.USER, SIGNER.address, SIGNER, make_entry())
    )
    assert (status, answer["error"]["code"]) == (503, "chain_unavailable")
    assert (await place.get("/health"))[0] == 503
    assert await place.book.count_waiting() == 0


async def test_paths_methods_and_queries(place):
    assert (await place.get("/nowhere"))[0] == 404
    assert (await place.get("/hanse/v1/records"))[0] == 405
    assert (await place.post("/hanse/v1/records/head", b""))[0] == 405
    assert (await place.get("/hanse/v1/records/commits?after=x"))[0] == 400
    assert (await place.get("/hanse/v1/records/commits?after=-1"))[0] == 400
    assert (await place.get("/hanse/v1/records/commits"))[1]["commits"] == []
    assert (await place.get("/hanse/v1/records/head"))[1]["last"] is None
    assert (await place.get("/health"))[0] == 200


async def test_a_slow_body_is_given_up(place):
    host, port = place.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /hanse/v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    head = await asyncio.wait_for(reader.read(200), 10)
    assert b" 408 " in head.split(b"\r\n")[0]
    writer.close()


async def test_a_full_backlog_takes_nothing_more(tmp_path):
    limits = RecorderLimits(open_leaves_max=1)
    async with open_place(tmp_path, limits) as place:
        for side, party, key in (
            (Side.PROVIDER, PROVIDER, RECEIPT),
            (Side.USER, SIGNER.address, SIGNER),
        ):
            assert (
                await place.post("/hanse/v1/records", place.sign(side, party, key, make_entry()))
            )[0] == 200
        status, answer = await place.post(
            "/hanse/v1/records", place.sign(Side.USER, SIGNER.address, SIGNER, make_entry(2))
        )
        assert (status, answer["error"]["code"]) == (503, "overloaded")


async def test_one_provider_fills_its_share_of_the_backlog_and_no_more(tmp_path):
    async with open_place(tmp_path, RecorderLimits(open_leaves_of_provider_max=1)) as place:
        other = make_entry(provider=USER)
        for side in Side:  # of another provider, so it is none of this one's share
            await place.book.take(side, [other], commit_by=100, now_s=1)
        statuses = []
        for number in (1, 2):
            for side, party, key in (
                (Side.PROVIDER, PROVIDER, RECEIPT),
                (Side.USER, SIGNER.address, SIGNER),
            ):
                body = place.sign(side, party, key, make_entry(number))
                statuses.append((await place.post("/hanse/v1/records", body))[0])
        assert statuses == [200, 200, 503, 200]
        assert await place.book.count_open() == 2


def test_a_node_that_falls_silent_makes_no_promise_late_before_it_is_made(tmp_path):
    """With a minute of silence and blocks of a second, the promised block could be over already."""
    place = "0x" + "e5" * 20
    deployment = Deployment(
        31_337, "0x" + "00" * 32, place, place, place, 3_600, 1, 0, place, place
    )
    settings = RecorderSettings(tmp_path, "http://node.test", deployment, interval_blocks=1)
    unseen_blocks = settings.limits.chain_silence_s
    least = 2 * settings.interval_blocks + 2 * deployment.confirmations + 5
    assert settings.get_promise_blocks() - unseen_blocks >= least


async def test_no_promise_is_made_that_a_filled_backlog_would_break(place):
    """Two parties in league match what they like: honest entries then wait some commits longer."""

    async def count_filled() -> int:
        return 3 * LEAVES_PER_COMMIT_MAX

    place.book.count_open = count_filled
    for side, party, key in (
        (Side.PROVIDER, PROVIDER, RECEIPT),
        (Side.USER, SIGNER.address, SIGNER),
    ):
        body = place.sign(side, party, key, make_entry())
        status, answer = await place.post("/hanse/v1/records", body)
        assert status == 200
    assert answer["matched"]["block"] == SeenChain.block + 4 * 40
