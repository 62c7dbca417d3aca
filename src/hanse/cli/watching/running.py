"""Opens what `hanse audit watch` works with, and keeps its rounds going."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any

from hanse.chain import Rpc, verify_deployment
from hanse.cli.auditing.places import get_evidence_folder, get_kept_folder
from hanse.cli.buying.wallet import get_database_path
from hanse.cli.control import hold_folder
from hanse.cli.network import load_network
from hanse.cli.reputation.evidence_folder import EvidenceFolder
from hanse.cli.session import Session
from hanse.cli.watching.challenges import Challenger
from hanse.cli.watching.copies import CopiesAtHand
from hanse.cli.watching.draws import DrawRules, Draws, Record, open_secret
from hanse.cli.watching.watcher import Watcher, WatcherParts
from hanse.market.reputation import Word
from hanse.protocol.commitments.lottery import PPM
from hanse.protocol.eip712 import Domain
from hanse.protocol.signatures import Address
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.settlement.keeping.kept_answers import KeptAnswers
from hanse.store import open_database

LOOK_S = 0.5
"""Between two looks at the folder of kept answers: one listing."""

CHALLENGE_LOOK_S = 2.0
"""Between two looks at challenges that are open; a step of theirs takes some blocks."""


async def serve(session: Session, options: dict[str, Any]) -> None:
    """Audit until SIGTERM or Ctrl-C, or with `--once` until nothing more can be decided now.

    Raises:
        HanseError: a key, the chain, the books, copies or calibrations are not in order.
    """
    network, stop = load_network(session.home), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(hold_folder(session.home / "audits"))
        rpc = await stack.enter_async_context(Rpc.connect(network.rpc_url))
        await verify_deployment(rpc, network.deployment)
        database = await open_database(get_database_path(session, options["key"]))
        stack.push_async_callback(database.close)
        copies = CopiesAtHand(
            options["copies"],
            options["calibrated"],
            runtime=options["runtime"],
            threads=options["threads"],
        )
        stack.callback(copies.close)
        domain = Domain(network.deployment.chain_id, network.deployment.escrow)
        signer_name, keyring = options["signer"] or options["key"], options["keyring"]
        signer = session.unlock_key(signer_name, use_keyring=keyring)
        evidence = get_evidence_folder(session)
        rules = DrawRules(
            round(options["at_least"] * PPM / 100), options["window"], options["record_wait_s"]
        )
        secret = open_secret(session.home / "audits" / "draw.key")
        own = {signer.address, session.get_key_address(options["key"])}
        told = await asyncio.to_thread(EvidenceFolder(evidence, domain).read)
        parts = WatcherParts(
            session,
            domain,
            KeptAnswers(get_kept_folder(session)),
            evidence,
            await open_voucher_book(database, domain),
            Draws(session, options["key"], network, rpc, rules, secret),
            copies,
            signer,
            session.output.event,
            count_records([one.testimony for one in told if one.testimony.witness in own]),
        )
        challenger = None
        if options["challenge"] is not None:
            challenger = Challenger(
                session,
                options["challenge"],
                evidence,
                domain,
                own,
                network.units.parse(options["bond_max"]),
                options["evidence_url"],
                keyring,
                session.output.event,
            )
        watcher = Watcher(parts)
        if options["once"]:
            await _run_once(watcher, challenger)
            _show_end(session, watcher)
            return
        _show_start(session, parts, options)
        await _run(watcher, challenger, stop)
        counts = dict(watcher.counts)
        session.output.event({"event": "stopped", "answers": counts}, f"Stopped. {counts or ''}")


def count_records(testimonies: list[Any]) -> dict[Address, Record]:
    """How earlier audits of each provider went, by this home's own evidence."""
    records: dict[Address, Record] = {}
    for said in sorted(testimonies, key=lambda said: said.at_s):
        if said.word in (Word.AUDIT_PASSED, Word.AUDIT_FAILED):
            known = records.get(said.provider, Record())
            records[said.provider] = known.add(is_failed=said.word is Word.AUDIT_FAILED)
    return records


async def _run(watcher: Watcher, challenger: Challenger | None, stop: asyncio.Event) -> None:
    """Rounds until it is stopped; an audit that is at work is finished."""
    loop, challenges_at = asyncio.get_running_loop(), 0.0
    while not stop.is_set():
        found_before = watcher.counts["cheat"]
        await watcher.run_round()
        is_news = watcher.counts["cheat"] > found_before
        if challenger is not None and (is_news or loop.time() >= challenges_at):
            await challenger.run_round()
            challenges_at = loop.time() + CHALLENGE_LOOK_S
        try:
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
        except TimeoutError:
            continue


async def _run_once(watcher: Watcher, challenger: Challenger | None) -> None:
    await watcher.run_round()
    if challenger is not None:
        await challenger.run_round()


def _show_start(session: Session, parts: WatcherParts, options: dict[str, Any]) -> None:
    document = {
        "kept": str(parts.kept.folder),
        "evidence": str(parts.evidence),
        "signs": parts.signer.address,
        "at_least": options["at_least"] / 100,
        "challenge": options["challenge"],
        "bond_max": options["bond_max"],
    }
    bonded = f"by {options['challenge']}, at most {options['bond_max']} bonded"
    session.output.show(
        document,
        lambda: session.output.fields(
            (
                ("answers from", document["kept"]),
                ("evidence in", document["evidence"]),
                ("signed by", document["signs"]),
                ("challenges", bonded if options["challenge"] else "none; --challenge brings them"),
            )
        ),
    )
    session.output.note("Ctrl-C stops it; what is kept waits for the next start.")


def _show_end(session: Session, watcher: Watcher) -> None:
    counts = dict(watcher.counts)
    session.output.show(
        {"answers": counts},
        lambda: (
            session.output.fields((what, str(count)) for what, count in counts.items())
            if counts
            else "Nothing that is kept can be decided now."
        ),
    )
