"""Reputations at a confirmed block, and a gateway that keeps them up to date.

    reputations = await fetch_reputations(rpc, deployment, folder.read(), providers)
    keeping = keep_reputations(client, rpc_url, deployment, path)

which is a context; it looks anew every 5 minutes, and when a file has come.

Stakes, receipt keys and times of registration come from the chain at one confirmed block; evidence
signed by a receipt key that is not the provider's is left out. The rest is arithmetic that
everybody does alike (`hanse.market.reputation`).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.auditor.reputation.evidence_folder import EvidenceFolder, Told
from hanse.chain import Deployment, Registry, Rpc
from hanse.chain.deployment import open_disputes
from hanse.market import HealthBook
from hanse.market.health import BARRED_S
from hanse.market.reputation import Reputation, Testimony, Word, compute_reputation
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import Address, to_bytes, to_hex

if TYPE_CHECKING:
    from hanse.sdk import Hanse

PROVIDERS_MAX = 512
"""Providers whose stakes are read: as many as heartbeats are fetched of."""

LOOK_S = 300.0
"""Between two looks of a gateway; a word halves in two weeks."""

NEWS_S = 1.0
"""Between two looks at the folder's own time, for files that have come: what an audit of ours found
should cost no further answers."""

REGISTRATIONS_AT_ONCE = 100
"""Providers of one query for events; nodes bound its length."""

_log = logging.getLogger("hanse.reputation")


async def fetch_reputations(
    rpc: Rpc, deployment: Deployment, told: Sequence[Told], providers: Collection[Address]
) -> dict[Address, Reputation]:
    """Reputations of these providers at one confirmed block; `PROVIDERS_MAX` of them at most.

    Raises:
        TransientError: the chain's node does not answer.
    """
    head = await rpc.fetch_head()
    (at,) = await rpc.fetch_headers_at([max(0, head.number - deployment.confirmations)])
    registry = Registry(rpc, deployment.registry)
    wanted = sorted(providers)[:PROVIDERS_MAX]
    about = set(wanted)
    owners: dict[Address, Address | None] = {}
    heard = []
    for one in told:
        if one.testimony.provider not in about:
            continue
        if one.receipt_key is None:
            heard.append(one.testimony)
            continue
        if one.receipt_key not in owners:
            owners[one.receipt_key] = await registry.find_provider_of_key(
                one.receipt_key, block=at.number
            )
        if owners[one.receipt_key] == one.testimony.provider:
            heard.append(one.testimony)
    stakes = {
        address: await _read_stake(rpc, deployment, address, at.number)
        for address in sorted(about | {said.witness for said in heard})
    }
    registered = await _fetch_registrations(rpc, deployment, wanted, at.number)
    by_provider: dict[Address, list[Testimony]] = {}
    for said in heard:
        by_provider.setdefault(said.provider, []).append(said)
    return {
        provider: compute_reputation(
            provider,
            by_provider.get(provider, ()),
            stakes,
            registered.get(provider, at.timestamp_s),
            at.timestamp_s,
        )
        for provider in wanted
    }


def report_own_audits(
    health: HealthBook, told: Sequence[Told], own: Collection[Address], reported: set[str]
) -> None:
    """Tell of this side's own audits, oldest first and each once, whatever its stake.

    Everybody else weighs them by a stake, which a user has none of; the user itself need not. One
    that was caught is not asked for `BARRED_S` from the audit on, also after a restart.
    """
    for said in sorted((one.testimony for one in told), key=lambda said: (said.at_s, said)):
        if said.witness not in own or said.evidence_hash in reported:
            continue
        reported.add(said.evidence_hash)
        if said.word in (Word.AUDIT_PASSED, Word.AUDIT_FAILED):
            health.report_audit(said.provider, is_passed=said.word is Word.AUDIT_PASSED)
        if said.word is Word.AUDIT_FAILED:
            at = datetime.fromtimestamp(said.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            found = (
                f"an audit of ours found at {at} that it did not run its copy "
                f"(evidence {said.evidence_hash})"
            )
            health.bar(said.provider, found, said.at_s + BARRED_S)


@asynccontextmanager
async def keep_reputations(
    opened: "contextlib.AbstractAsyncContextManager[Hanse]",
    rpc_url: str,
    deployment: Deployment,
    path: Path,
    own: Collection[Address],
) -> AsyncIterator["Hanse"]:
    """An open client whose choices go by the evidence in a folder, looked at every `LOOK_S`.

    What the addresses `own` signed is believed as this side's own experience.
    """
    folder = EvidenceFolder(path, Domain(deployment.chain_id, deployment.escrow))
    async with opened as client, Rpc.connect(rpc_url) as rpc:
        task = asyncio.create_task(_look_for_ever(client, rpc, deployment, folder, own))
        try:
            yield client
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _look_for_ever(
    client: "Hanse",
    rpc: Rpc,
    deployment: Deployment,
    folder: EvidenceFolder,
    own: Collection[Address],
) -> None:
    health, reported = client.chooser.board.health, set[str]()
    said = ""
    while True:
        seen = _get_time_ns(folder.path)
        try:
            told = await asyncio.to_thread(folder.read)
            report_own_audits(health, told, own, reported)
            if (many := folder.refused.get(str(folder.path), "")) != said:
                _log.warning("evidence in %s: %s", folder.path, many or "all files are read again")
                said = many
            providers = {offer.listed.provider for offer in client.get_offers()}
            found = await fetch_reputations(rpc, deployment, told, providers)
            for provider, reputation in found.items():
                health.take_reputation(provider, reputation.risk_ppm)
        except HanseError as error:
            _log.warning("reputations wait: %s", error.message)
        except Exception as error:  # whatever lies in the folder, the next look comes
            _log.error("a defect in reading reputations: %s", type(error).__name__)
        await _wait_for_news(folder.path, seen)


async def _wait_for_news(folder: Path, seen: int) -> None:
    """Until a file has come or gone since, at most `LOOK_S`."""
    for _ in range(int(LOOK_S / NEWS_S)):
        await asyncio.sleep(NEWS_S)
        if _get_time_ns(folder) != seen:
            return


def _get_time_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0  # the look itself says what is wrong with it


async def _read_stake(rpc: Rpc, deployment: Deployment, address: Address, block: int) -> int:
    """What an address stands to lose: as a provider, if that stake stands, and as an auditor."""
    found = await Registry(rpc, deployment.registry).read_provider(address, block=block)
    stands = not found.is_condemned and not found.unbonding_until_s
    auditor = await open_disputes(rpc, deployment).read_auditor(address, block=block)
    return (found.stake if stands else 0) + auditor.stake


async def _fetch_registrations(
    rpc: Rpc, deployment: Deployment, providers: Sequence[Address], block: int
) -> dict[Address, int]:
    """When each registered first, by the chain's clock."""
    registry = Registry(rpc, deployment.registry).contract
    topic = to_hex(registry.artifact.events["Registered"].topic)
    first: dict[Address, int] = {}
    for begin in range(0, len(providers), REGISTRATIONS_AT_ONCE):
        words = [
            to_hex(bytes(12) + to_bytes(provider))
            for provider in providers[begin : begin + REGISTRATIONS_AT_ONCE]
        ]
        logs = await rpc.fetch_logs(
            [registry.address],
            first=deployment.start_block,
            last=block,
            topics=[topic, words],
        )
        for log in logs:
            first.setdefault(to_hex(log.topics[1][12:]), log.block_number)
    blocks = sorted(set(first.values()))
    headers = await rpc.fetch_headers_at(blocks) if blocks else []
    times = {header.number: header.timestamp_s for header in headers}
    return {provider: times[number] for provider, number in first.items()}
