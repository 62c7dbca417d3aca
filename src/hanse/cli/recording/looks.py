"""Looks at records from one side: what is unmatched at the recorders, how recorders behaved."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from hanse.cli.buying.wallet import get_database_path
from hanse.cli.network import load_network
from hanse.cli.selling.settlements import get_books
from hanse.cli.session import Session
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.records import Side, SignedSubmission
from hanse.protocol.records.wire import entry_to_json
from hanse.settlement.records.answers import Identity
from hanse.settlement.records.recorder_client import HttpRecorderClient, UnmatchedEntry
from hanse.settlement.records.submission_book import SubmissionBook, open_submission_book
from hanse.settlement.records.submitter import UNMATCHED_PAGES_PER_ROUND_MAX
from hanse.store import is_shared, open_database


async def fetch_unmatched(
    session: Session, options: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Unmatched entries of one side at every recorder of the network, and who did not answer.

    Raises:
        RequestError: `configuration_invalid` if the network names no recorder; a key's.
    """
    network = load_network(session.home)
    if not network.recorders:
        raise RequestError(
            "configuration_invalid",
            f'{session.home / "network.json"} names no recorder; add: "recorders": ["http://..."]',
        )
    identity = _get_identity(session, options)
    client, now_s = HttpRecorderClient(), int(time.time())
    unmatched: list[dict[str, Any]] = []
    silent: dict[str, str] = {}
    try:
        for url in network.recorders:
            try:
                address = await client.fetch_address(url)
                found = await _fetch_pages(client, url, identity.sign(address, (), now_s))
            except HanseError as error:
                silent[url] = error.message
                continue
            unmatched += [
                {
                    "url": url,
                    "side": one.side,
                    "reason": one.reason,
                    "entry": entry_to_json(one.entry),
                }
                for one in found
            ]
    finally:
        await client.close()
    return unmatched, silent


async def _fetch_pages(
    client: HttpRecorderClient, url: str, signed: SignedSubmission
) -> list[UnmatchedEntry]:
    found: list[UnmatchedEntry] = []
    after = ""
    for _ in range(UNMATCHED_PAGES_PER_ROUND_MAX):
        page = await client.fetch_unmatched(url, signed, after)
        found += page.entries
        after = page.following
        if not after:
            break
    return found


async def read_recorders(session: Session, key: str, name: str | None) -> dict[str, Any]:
    """Recorders that one side has met, from its own database, and its receipts by state."""
    async with open_submissions(session, key, name) as book:
        recorders = [
            {
                "url": known.url,
                "address": known.address,
                "number": str(known.number),
                "head": known.head,
                "fault": known.fault,
                "reason": known.reason,
                "evidence": msgspec.json.decode(known.evidence) if known.evidence else None,
                "found_at": known.found_at,
            }
            for known in await book.list_recorders()
        ]
        waiting = [
            {"entry": entry_to_json(one.entry), "recorder": one.recorder, "reason": one.reason}
            for one in await book.list_waiting()
        ]
        counts = await book.count_states()
    return {"recorders": recorders, "receipts": counts, "waiting": waiting}


@asynccontextmanager
async def open_submissions(
    session: Session, key: str, name: str | None = None
) -> AsyncIterator[SubmissionBook]:
    """One side's submissions: a provider's if it is named, else a user's.

    Raises:
        RequestError: `not_found` if that side has no database yet.
    """
    path = get_books(session, name) if name else get_database_path(session, key)
    if not _is_there(path):
        raise RequestError("not_found", f"there are no books yet: {path} does not exist")
    database = await open_database(path)
    try:
        yield await open_submission_book(database)
    finally:
        await database.close()


def _is_there(path: str) -> bool:
    return is_shared(path) or Path(path).is_file()


def _get_identity(session: Session, options: dict[str, Any]) -> Identity:
    deployment = load_network(session.home).deployment
    domain, use_keyring = Domain(deployment.chain_id, deployment.escrow), options["keyring"]
    if options["name"]:
        receipt = session.unlock_key(f"{options['name']}-receipt", use_keyring=use_keyring)
        provider = session.get_key_address(options["name"])
        return Identity(Side.PROVIDER, provider, receipt, domain)
    signer = session.unlock_key(options["signer"] or options["key"], use_keyring=use_keyring)
    return Identity(Side.USER, signer.address, signer, domain)
