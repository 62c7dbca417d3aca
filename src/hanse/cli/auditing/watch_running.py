"""Opens what `hanse audit watch` works with, and shows its beginning and its end."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from hanse.auditor.opened_model import read_keyed, verify_base
from hanse.auditor.panels.court import Court
from hanse.auditor.reputation.evidence_folder import EvidenceFolder
from hanse.auditor.watching.challenges import Challenger
from hanse.auditor.watching.copies import CopiesAtHand
from hanse.auditor.watching.draws import DrawRules, Draws, Prove, open_secret
from hanse.auditor.watching.rounds import count_records, run_once, run_rounds
from hanse.auditor.watching.watcher import Watcher, WatcherParts
from hanse.chain import Rpc, verify_deployment
from hanse.cli.auditing.model_options import check_runtime, find_all_keyed, find_audited
from hanse.cli.auditing.places import get_evidence_folder, get_kept_folder
from hanse.cli.buying.wallet import get_database_path
from hanse.cli.control import hold_folder
from hanse.cli.network import Network, load_network
from hanse.cli.panels.opening import open_court
from hanse.cli.recording.patience import Patience
from hanse.cli.recording.proofs import prove
from hanse.cli.session import Session
from hanse.protocol.commitments.lottery import PPM
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import SignedReceipt
from hanse.sdk.settings import reaches_private
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.settlement.keeping.kept_answers import KeptAnswers
from hanse.store import open_database


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
        copies = await asyncio.to_thread(_open_copies, session, options)
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
            session.home / "cache",
            reaches_private(network.private_endpoints, network.deployment),
            domain,
            KeptAnswers(get_kept_folder(session)),
            evidence,
            await open_voucher_book(database, domain),
            Draws(
                rpc,
                network.deployment,
                rules,
                secret,
                get_prover(session, network, options["key"], domain, Patience()),
            ),
            copies,
            signer,
            session.output.event,
            count_records(one.testimony for one in told if one.testimony.witness in own),
        )
        challenger = None
        if options["challenge"] is not None:
            challenger = Challenger(
                session.home,
                _get_court_opener(session, options["challenge"], keyring),
                evidence,
                domain,
                own,
                network.units.parse(options["bond_max"]),
                options["evidence_url"],
                session.output.event,
            )
        watcher = Watcher(parts)
        if options["once"]:
            await run_once(watcher, challenger)
            _show_end(session, watcher)
            return
        _show_start(session, parts, options)
        await run_rounds(watcher, challenger, stop)
        counts = dict(watcher.counts)
        session.output.event({"event": "stopped", "answers": counts}, f"Stopped. {counts or ''}")


def _open_copies(session: Session, options: dict[str, Any]) -> CopiesAtHand:
    """What is at hand, checked now: a wrong key or model would let go of every answer."""
    check_runtime(options["runtime"])
    keyed = find_all_keyed(options)
    model = None if options["model"] is None else find_audited(options)
    for one in keyed:
        assert model is not None
        verify_base(model, read_keyed(one)[0], session.home / "cache")
    return CopiesAtHand(
        options["copies"],
        options["calibrated"],
        runtime=options["runtime"],
        threads=options["threads"],
        model=model,
        keyed=keyed,
    )


def get_prover(
    session: Session, network: Network, key: str, domain: Domain, patience: Patience
) -> Prove | None:
    """What finds a receipt's record for the draw; None where no recorder is named.

    One slow recorder must not hold up the draws of all other answers: those that wait for it stay
    undecided, until it is asked again or the buyer's own secret decides.
    """
    if not network.recorders:
        return None

    async def find(signed: SignedReceipt, document: dict[str, Any]) -> dict[str, Any]:
        return await prove(session, key, signed, document, domain, 0, patience)

    return find


def _get_court_opener(
    session: Session, key: str, use_keyring: bool
) -> Callable[[bool], AbstractAsyncContextManager[Court]]:
    """Disputes for the key that challenges: its password is needed only to send."""

    def open_(can_send: bool) -> AbstractAsyncContextManager[Court]:
        return open_court(session, key, can_send=can_send, use_keyring=use_keyring and can_send)

    return open_


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
