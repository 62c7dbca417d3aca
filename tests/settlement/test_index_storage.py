"""Chain storage over the database: what events mean, reorganisations undone, outbox entries."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.chain import Attempt, Call, Checkpoint, Event, EventBatch, OutboxEntry, TransactionState
from hanse.chain.storage import CHECKPOINTS_KEPT, MemoryOutboxStorage
from hanse.contracts import get_sub_account_key
from hanse.settlement import SubAccountFunds
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.settlement.chain_state.outbox_storage import open_outbox_storage
from hanse.settlement.chain_state.sub_account_fold import (
    create_provider_fold,
    decode_funds,
    find_funds,
    get_document_key,
)
from hanse.store import open_database

PROVIDER, OTHER = "0x" + "b2" * 20, "0x" + "b3" * 20
USERS = ["0x" + f"{i:02x}" * 20 for i in range(1, 4)]
SIGNER = "0x" + "51" * 20


def event(name, block, **fields) -> Event:
    return Event(
        contract="Escrow",
        name=name,
        fields=fields,
        address="0x" + "e5" * 20,
        block_number=block,
        block_hash=f"0x{block:064x}",
        timestamp_s=block,
        transaction_hash="0x" + "00" * 32,
        log_index=0,
    )


def funded(block, user, amount, provider=PROVIDER, from_refund=0, refund=0):
    return event(
        "Funded",
        block,
        user=user,
        provider=provider,
        signer=SIGNER,
        amount=amount,
        from_refund=from_refund,
        refund=refund,
    )


def settled(block, *claims, provider=PROVIDER):
    words = []
    for user, status, sequence, paid in claims:
        prefix = int.from_bytes(get_sub_account_key(user, provider, SIGNER)[:15], "big")
        words.append(prefix << 136 | status << 128 | (sequence & 0xFFFFFFFF) << 96 | paid)
    return event("Settled", block, provider=provider, payee=provider, paid=0, results=words)


def batch(number, *events):
    return EventBatch(number, Checkpoint(number, f"0x{number:064x}"), number, events)


async def open_both(changes, url=":memory:"):
    database = await open_database(url)
    storage = await open_index_storage(
        database,
        "broker",
        create_provider_fold(PROVIDER),
        lambda changed, at: changes.append((changed, at)),
    )
    return database, storage


async def funds_of(storage, user):
    documents = await storage.read_documents()
    return find_funds(documents.get, user, SIGNER)


async def test_life_of_a_sub_account_as_events_tell_it(database_url):
    changes = []
    database, storage = await open_both(changes, database_url)
    user = USERS[0]
    names = {"user": user, "provider": PROVIDER, "signer": SIGNER}
    steps = [
        (funded(1, user, 1_000), SubAccountFunds(1_000, 0)),
        (settled(2, (user, 6, 3, 300)), SubAccountFunds(700, 300, 3)),
        (
            event("RefundRequested", 3, **names, amount=600, refund=600, unlock_time_s=99),
            SubAccountFunds(700, 300, 3, 600, 99),
        ),
        (
            funded(4, user, 150, from_refund=150, refund=450),
            SubAccountFunds(700, 300, 3, 450, 99),
        ),
        # a settlement overtakes the refund: what is pending is at most what is left
        (settled(5, (user, 5, 2**32 + 1, 400)), SubAccountFunds(300, 700, 2**32 + 1, 300, 99)),
        (event("RefundCancelled", 6, **names, amount=300), SubAccountFunds(300, 700, 2**32 + 1)),
        (settled(7, (user, 4, 9, 0)), SubAccountFunds(300, 700, 2**32 + 1)),
        (
            event("RefundRequested", 8, **names, amount=300, refund=300, unlock_time_s=120),
            SubAccountFunds(300, 700, 2**32 + 1, 300, 120),
        ),
        (event("RefundClaimed", 9, **names, amount=300), SubAccountFunds(0, 700, 2**32 + 1)),
    ]
    for number, (fact, expected) in enumerate(steps, 1):
        await storage.apply_batch(batch(number, fact))
        assert await funds_of(storage, user) == expected, fact.name
        told = changes[-1][0]
        if get_document_key(user, SIGNER) in told:
            assert decode_funds(told[get_document_key(user, SIGNER)]) == expected
    await database.close()


async def test_other_providers_and_contracts_change_nothing():
    database, storage = await open_both([])
    await storage.apply_batch(
        batch(
            1,
            funded(1, USERS[0], 5, provider=OTHER),
            settled(1, (USERS[0], 6, 1, 5), provider=OTHER),
            event("Deposited", 1, user=USERS[0], amount=5),
        )
    )
    assert await storage.read_documents() == {}
    assert (await storage.read_checkpoints())[0].number == 1
    await database.close()


async def test_two_claims_on_one_sub_account_in_one_batch_add_up(database_url):
    database, storage = await open_both([], database_url)
    user = USERS[0]
    await storage.apply_batch(
        batch(1, funded(1, user, 100), settled(1, (user, 6, 1, 30), (user, 6, 2, 20)))
    )
    assert await funds_of(storage, user) == SubAccountFunds(50, 50, 2)
    await database.close()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 30))
def test_rollback_is_as_if_the_blocks_had_never_been(seed, blocks, kept):
    import asyncio

    asyncio.run(_check_rollback(random.Random(seed), blocks, min(kept, blocks)))


async def _check_rollback(rng, blocks, kept):
    def facts(number):
        user = rng.choice(USERS)
        if rng.random() < 0.5:
            return [funded(number, user, rng.randrange(1, 100))]
        return [settled(number, (user, 6, number, 0)), funded(number, rng.choice(USERS), 7)]

    batches = [batch(number, *facts(number)) for number in range(1, blocks + 1)]
    database, storage = await open_both([])
    plain_database, plain = await open_both([])
    for item in batches:
        await storage.apply_batch(item)
    for item in batches[:kept]:
        await plain.apply_batch(item)
    await storage.rollback_index(batches[kept - 1].checkpoint if kept else None)
    assert await storage.read_documents() == await plain.read_documents()
    assert await storage.read_checkpoints() == await plain.read_checkpoints()
    for item in batches[kept:]:
        await storage.apply_batch(item)
        await plain.apply_batch(item)
    assert await storage.read_documents() == await plain.read_documents()
    await database.close()
    await plain_database.close()


async def test_rollback_of_everything_reaches_beyond_what_is_kept(database_url):
    changes = []
    database, storage = await open_both(changes, database_url)
    await storage.apply_batch(batch(1, funded(1, USERS[0], 5)))
    for number in range(2, CHECKPOINTS_KEPT + 10):
        await storage.apply_batch(batch(number))
    assert len(await storage.read_checkpoints()) == CHECKPOINTS_KEPT
    rows = await database.read(lambda tx: tx.find_all("SELECT * FROM chain_replaced"))
    assert rows == []  # what no rollback can reach is forgotten
    await storage.rollback_index(None)
    assert await storage.read_documents() == {}
    assert changes[-1][0][get_document_key(USERS[0], SIGNER)] is None
    await database.close()


@pytest.fixture
def entries():
    def entry(number, state, nonce):
        return OutboxEntry(
            scope="1:0x01",
            key=f"key-{number}",
            ordinal=number,
            call=Call("0x" + "e5" * 20, b"\x00\xff" * number, 0, "settle"),
            state=state,
            nonce=nonce,
            attempts=(Attempt("0x" + "0a" * 32, b"\x02\xf8", 1, 2**70),),
        )

    return [
        entry(1, TransactionState.CONFIRMED, 0),
        entry(2, TransactionState.SIGNED, 1),
        entry(3, TransactionState.QUEUED, None),
    ]


async def test_outbox_storage_answers_like_the_one_in_memory(database_url, entries):
    database = await open_database(database_url)
    stored, memory = await open_outbox_storage(database), MemoryOutboxStorage()
    for storage in (stored, memory):
        await storage.put_entries(entries[:2])
        await storage.put_entries(entries[1:])
    scope = "1:0x01"
    for open_only in (True, False):
        assert await stored.read_entries(scope, open_only=open_only) == (
            await memory.read_entries(scope, open_only=open_only)
        )
    assert await stored.find_entry(scope, "key-2") == entries[1]
    assert await stored.find_entry("other", "key-2") is None
    assert await stored.find_by_nonce(scope, 1) == entries[1]
    assert await stored.find_by_nonce(scope, 9) is None
    assert await stored.read_last(scope) == await memory.read_last(scope) == (3, 1)
    assert await stored.read_last("other") == (0, -1)
    await database.close()
    again = await open_outbox_storage(await open_database(database_url))
    assert await again.read_entries(scope, open_only=False) == entries
    await again._database.close()
