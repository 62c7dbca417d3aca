"""Deployment and the typed faces against the real contracts on a real node."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from chain_parts import CHAIN_ID, Crash, CrashingStorage, make_funded_key, mine

from hanse.chain import (
    Asset,
    ChainError,
    Committed,
    Deployment,
    Escrow,
    EventIndex,
    Key,
    MemoryIndexStorage,
    MemoryOutboxStorage,
    Outbox,
    PublishedService,
    RecordsHead,
    Registry,
    Rpc,
    deploy,
    load_deployment,
    open_contracts,
    open_records,
    parse_committed,
    save_deployment,
    verify_deployment,
)
from hanse.contracts.deployment import Terms
from hanse.protocol.errors import RequestError
from hanse.protocol.intents import Fund

K = 1
LOOK_S = 0.01
TERMS = Terms(lock_time_s=3_600, minimum_stake=1_000)


@pytest.fixture
async def chain(anvil: str) -> AsyncIterator[Rpc]:
    async with Rpc.connect(anvil) as rpc:
        yield rpc


class Party:
    """A key with an outbox that waits briefly."""

    def __init__(self, rpc: Rpc, key: Key, storage: MemoryOutboxStorage | None = None) -> None:
        self.address = key.address
        self.outbox = Outbox(
            rpc, key, storage or MemoryOutboxStorage(), chain_id=CHAIN_ID, confirmations=K
        )
        self.count = 0

    async def do(self, call: object) -> int:
        self.count += 1
        entry = await self.outbox.submit(f"{self.count}", call, poll_interval_s=LOOK_S)  # type: ignore[arg-type]
        assert entry.block_number is not None
        return entry.block_number


async def make_party(rpc: Rpc) -> Party:
    return Party(rpc, await make_funded_key(rpc))


async def make_deployment(rpc: Rpc) -> Deployment:
    deployer = await make_party(rpc)
    return await deploy(rpc, deployer.outbox, TERMS, confirmations=K, poll_interval_s=LOOK_S)


async def test_a_user_goes_through_every_place_of_money(chain: Rpc) -> None:
    deployment = await make_deployment(chain)
    escrow, registry, asset = open_contracts(chain, deployment)
    depositor, provider = await make_party(chain), await make_party(chain)
    signer, receipt_key = "0x" + "51" * 20, "0x" + "52" * 20
    await provider.do(asset.mint(provider.address, 5_000))
    await provider.do(asset.approve(registry.address, 5_000))
    block = await provider.do(registry.register(2_000, receipt_key, provider.address))
    info = await registry.read_provider(provider.address, block=block)
    assert (info.stake, info.receipt_key, info.payee) == (2_000, receipt_key, provider.address)
    assert info.is_registered
    assert await registry.read_is_active(provider.address, block=block)
    assert not (await registry.read_provider(depositor.address, block=block)).is_registered
    assert await registry.find_provider_of_key(receipt_key, block=block) == provider.address
    published = PublishedService(7, 1, "0x" + "0f" * 32, "chat", "http://127.0.0.1:1/", 10, 5, 20)
    block = await provider.do(registry.publish_service(provider.address, published))
    service = await registry.read_service(provider.address, 7, block=block)
    assert (service.offer_hash, service.revision, service.active) == ("0x" + "0f" * 32, 1, True)

    await depositor.do(asset.mint(depositor.address, 1_000))
    await depositor.do(asset.approve(escrow.address, 1_000))
    await depositor.do(escrow.deposit(600))
    await depositor.do(escrow.open(100, [Fund(provider.address, signer, 250)]))
    await depositor.do(escrow.fund(provider.address, signer, 50))
    block = await depositor.do(escrow.request_refund(provider.address, signer, 120))
    sub = await escrow.read_sub_account(depositor.address, provider.address, signer, block=block)
    assert (sub.balance, sub.claimed, sub.sequence, sub.refund) == (300, 0, 0, 120)
    assert sub.available == 180
    header = await chain.fetch_header(block)
    assert header is not None
    assert sub.unlock_time_s == header.timestamp_s + TERMS.lock_time_s
    assert await escrow.read_account(depositor.address, block=block) == 400
    block = await depositor.do(escrow.withdraw(400))
    assert await asset.read_balance(depositor.address, block=block) == 700
    with pytest.raises(ChainError) as caught:
        await depositor.do(escrow.withdraw(1))
    assert caught.value.reason == "balance"

    storage = MemoryIndexStorage()
    index = EventIndex(
        chain,
        [escrow.contract, registry.contract],
        storage,
        start_block=deployment.start_block,
        confirmations=0,
    )
    await index.catch_up()
    names = [event.name for event in storage.events]
    assert names == [
        "Registered",
        "ServicePublished",
        "Deposited",
        "Deposited",
        "Funded",
        "Funded",
        "RefundRequested",
        "Withdrawn",
    ]
    assert storage.events[1].fields["uri"] == "http://127.0.0.1:1/"


@pytest.mark.parametrize("write", [0, 1, 3, 5])
async def test_a_deployment_that_crashed_goes_on(chain: Rpc, write: int) -> None:
    storage = CrashingStorage()
    storage.writes_left = write
    key = await make_funded_key(chain)
    with pytest.raises(Crash):
        await deploy(chain, Party(chain, key, storage).outbox, TERMS, confirmations=K)
    storage.writes_left = None
    deployment = await deploy(chain, Party(chain, key, storage).outbox, TERMS, confirmations=K)
    head = await chain.fetch_head()
    assert await chain.fetch_transaction_count(key.address, block=head.number) == 5
    await verify_deployment(chain, deployment)


async def test_the_file_is_checked_against_the_chain(chain: Rpc, tmp_path: Path) -> None:
    deployment = await make_deployment(chain)
    path = tmp_path / "deployment.json"
    save_deployment(path, deployment)
    assert load_deployment(path) == deployment
    other = await make_deployment(chain)
    wrong = {
        "chain id": {"chain_id": 1},
        "block 0": {"genesis_hash": "0x" + "00" * 32},
        "Escrow at": {"escrow": deployment.registry},
        "Registry at": {"registry": deployment.asset},
        "Escrow's registry": {"registry": other.registry},
        "Escrow's asset": {"asset": other.asset},
        "lock time": {"lock_time_s": 7_200},
        "Records at": {"records": deployment.registry},
        "Disputes at": {"disputes": deployment.records},
        "Registry's disputes": {"disputes": other.disputes},
        "no code": {"escrow": "0x" + "77" * 20},
    }
    for words, change in wrong.items():
        with pytest.raises(RequestError, match=words):
            await verify_deployment(chain, msgspec.structs.replace(deployment, **change))


@pytest.mark.parametrize("keep", [1, 300, -1])
async def test_a_piece_of_our_code_is_not_our_contract(chain: Rpc, keep: int) -> None:
    deployment = await make_deployment(chain)
    head = await chain.fetch_head()
    code = await chain.fetch_code(deployment.records, block=head.number)
    await chain.request("anvil_setCode", deployment.records, "0x" + code[:keep].hex())
    await mine(chain, K + 1)
    with pytest.raises(RequestError, match="Records at"):
        await verify_deployment(chain, deployment)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"chain_id": "x"}', b"[" * 20_000])
def test_a_malformed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deployment.json"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="is not a deployment file"):
        load_deployment(path)


async def test_reading_where_no_contract_is_says_so(chain: Rpc) -> None:
    head = await chain.fetch_head()
    nowhere = "0x" + "99" * 20
    for view in (
        Escrow(chain, nowhere).read_account(nowhere, block=head.number),
        Registry(chain, nowhere).read_minimum_stake(block=head.number),
        Asset(chain, nowhere).read_balance(nowhere, block=head.number),
    ):
        with pytest.raises(ChainError, match=f"answers at {nowhere}"):
            await view


async def test_a_recorder_commits_and_anyone_reads_its_head(chain: Rpc) -> None:
    deployment = await make_deployment(chain)
    records = open_records(chain, deployment)
    recorder = await make_party(chain)
    block = (await chain.fetch_head()).number
    assert await records.read_head(recorder.address, block=block) == RecordsHead(0, bytes(32))
    storage = MemoryIndexStorage()
    index = EventIndex(
        chain,
        [records.contract],
        storage,
        start_block=deployment.start_block,
        confirmations=0,
    )
    for number, fee_total in ((1, 500), (2, 0)):
        block = await recorder.do(records.commit(b"\x5a" * 32, 10 * number, fee_total))
        head = await records.read_head(recorder.address, block=block)
        assert head.number == number
        await index.catch_up()
        assert parse_committed(storage.events[-1]) == Committed(
            recorder.address, number, b"\x5a" * 32, 10 * number, fee_total, head.head
        )
    with pytest.raises(ChainError) as caught:
        await recorder.do(records.commit(bytes(32), 1, 1))
    assert caught.value.reason == "root"


def test_a_file_from_before_records_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    old = {"chain_id": 1, "genesis_hash": "0x", "asset": "0x", "registry": "0x", "escrow": "0x"}
    old |= {"lock_time_s": 3_600, "confirmations": 2, "start_block": 1}
    path.write_bytes(msgspec.json.encode(old))
    with pytest.raises(RequestError, match=r"`records` is missing.*fresh --home"):
        load_deployment(path)
