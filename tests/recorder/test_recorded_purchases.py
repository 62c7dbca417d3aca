"""The whole of it: purchases from a real broker, recorded from both sides' own books."""

import json

import msgspec
import pytest

from hanse.engines import open_engine
from hanse.protocol.errors import VerificationError
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service
from hanse.sdk import Hanse, Settings
from hanse.sdk.record_file import export_record, verify_record_document
from hanse.settlement.records.chain_check import verify_on_chain
from hanse.settlement.records.submitter import RecordsSettings
from tests.provider.chain_parts import PRICES, STAKE
from tests.recorder.record_parts import ReceiptList, key_of, until

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "one two three"}]


async def test_purchases_are_recorded_and_the_settlement_names_the_head(world):
    market = world.market
    recorder = await world.start_recorder()
    records = RecordsSettings((recorder.url,), interval_s=0.1, resume_s=0.2)
    process = await BrokerProcess.start(
        BrokerSettings(
            provider=market.owner.address,
            data_dir=world.folder / "broker",
            rpc_url=market.url,
            deployment=market.deployment,
            stake=STAKE,
            settle_interval_s=0,
            records=records,
        ),
        BrokerKeys(market.receipt, market.owner),
        [Service(1, open_engine("echo", {"answer_tokens": 8}), PRICES)],
    )
    user, signer = await market.make_user(10**6)
    settings = Settings(
        market.url,
        market.deployment,
        world.folder / "user.db",
        signer=signer,
        user=user.address,
        discover_interval_s=0.2,
        records=records,
    )
    async with Hanse.open(settings) as hanse:
        await until(hanse.get_offers)
        (offer,) = hanse.get_offers()
        view = process.broker.parts.chain_view
        await until(lambda: view.find_funds(user.address, signer.address))
        for _ in range(3):
            await hanse.chat(offer.listed.offer.model, MESSAGES)

        async def is_recorded() -> bool:
            await market.node.mine(1)
            ours = await hanse.records.book.count_states()
            theirs = await process.records.book.count_states()
            return ours == theirs == {"recorded": 3}

        await until(is_recorded, 60)
        (batch,) = await process.settle_now()
        receipt = await market.rpc.fetch_receipt(batch.transaction_hash)
        events = [market.escrow.contract.find_event(log, 0) for log in receipt.logs]
        (settled,) = [event for event in events if event and event.name == "Settled"]
        commits = await world.read_commits(recorder.recorder.address)
        assert settled.fields["records_head"] == commits[-1].head

        stored = (await hanse.get_receipts())[0]
        known = await hanse.records.book.find_entry(key_of(stored.signed))
        document = export_record(
            await hanse.export_receipt(stored.request_id), known.proof, market.deployment.records
        )
        found = verify_record_document(json.dumps(document).encode())
        assert found.receipt.receipt == stored.signed
        await verify_on_chain(world.view, found.proof)
        check_forgeries(document)
    await process.stop()
    await recorder.stop()


def check_forgeries(document) -> None:
    """Every field of a record file is bound: none can be changed unnoticed."""

    def forge(path, value) -> bytes:
        copy = json.loads(json.dumps(document))
        inner = copy
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        return json.dumps(copy).encode()

    wrong = "0x" + "ee" * 32
    for path, value in (
        (("format",), "hanse-record-2"),
        (("records",), "nowhere"),
        (("receipt", "receipt", "fee"), "0"),
        (("receipt", "domain", "chain_id"), 1),
        (("proof", "user_trace_hash"), wrong),
        (("proof", "provider_trace_hash"), wrong),
        (("proof", "siblings"), [wrong] * 3),
        (("proof", "index"), "7"),
        *((("proof", "commit", name), wrong) for name in ("root", "head", "previous_head")),
        *((("proof", "commit", name), "1234") for name in ("count", "fee_total")),
    ):
        with pytest.raises(VerificationError):
            verify_record_document(forge(path, value))
    for content in (b"", b"{}", b"[" * 5_000, b"\xff", json.dumps({**document, "x": 1}).encode()):
        with pytest.raises(VerificationError):
            verify_record_document(content)


async def test_a_proof_of_another_chain_or_transaction_is_refused(world):
    seller = await world.add_seller()
    buyer = await world.add_buyer(seller)
    receipts = [world.make_receipt(seller, buyer, 1)]
    recorder = await world.start_recorder()
    async with (
        world.submitter(seller, ReceiptList(receipts), recorder.url) as one,
        world.submitter(buyer, ReceiptList(receipts), recorder.url) as two,
    ):
        await one.step()
        await two.step()

        async def is_recorded() -> bool:
            await two.step()
            await world.market.node.mine(1)
            return await two.book.count_states() == {"recorded": 1}

        await until(is_recorded)
        proof = (await two.book.find_entry(key_of(receipts[0]))).proof
    await verify_on_chain(world.view, proof)
    elsewhere = (await world.market.rpc.fetch_headers(1, 30))[-1].hash  # no transaction at all
    for changed in (
        {"transaction_hash": elsewhere},
        {"recorder": seller.owner.address},
        {"block_number": proof.block_number - 1},  # whose hash would decide what is audited
        {"block_number": proof.block_number + 1},
        {"commit": msgspec.structs.replace(proof.commit, root="0x" + "ee" * 32)},
        {"commit": msgspec.structs.replace(proof.commit, fee_total=9)},
    ):
        with pytest.raises(VerificationError):
            await verify_on_chain(world.view, msgspec.structs.replace(proof, **changed))
    await recorder.stop()
