"""`hanse audit`: recompute what was bought, and show it to others."""

import asyncio
from pathlib import Path
from typing import Any

import click

from hanse.cli.auditing.model_options import CONTEXT, FILE, find_audited, find_keyed, model_options
from hanse.cli.auditing.overviews import calibrate, draw, report
from hanse.cli.auditing.watch_command import watch
from hanse.cli.framework import group, pass_session
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError, VerificationError


@group(
    "audit",
    short_help="Recompute what was bought; evidence that others can check.",
    examples=(
        ("Measure honest noise first",
         "hanse audit calibrate --model copy.gguf --answers 300 -o calibration.json"),
        ("Audit one request",
         "hanse audit run 0x5f0c... --model copy.gguf --calibration calibration.json"),
        ("Somebody's evidence, rerun", "hanse audit replay evidence.json --model copy.gguf"),
        ("What a gateway buys, by itself",
         "hanse audit watch --copies ./copies --calibration calibration.json"),
        ("All that was found", "hanse audit report ./evidence"),
    ),
)  # fmt: skip
def audit() -> None:
    """Check that answers were made by one full run of the provider's own copy of the model.

    An audit runs prompt and answer through the model once and compares with what the provider
    committed to in the receipt. What it proves, and what not: docs/verification/audits.md.
    """


@audit.command_of(
    "run",
    short_help="Audit one request that was bought from here.",
    examples=(
        ("By the broker's opening",
         "hanse audit run 0x5f0c... --model copy.gguf --calibration calibration.json"),
        ("A gateway's purchase, signed by its session key",
         "hanse audit run 0x5f0c... --signer gateway --model copy.gguf --calibration c.json"),
        ("Is a bill without its commitment? That takes no model", "hanse audit run 0x5f0c..."),
        ("Evidence without the question and the answer",
         "hanse audit run 0x5f0c... --model copy.gguf --calibration c.json --withhold"),
    ),
)  # fmt: skip
@click.argument("name", metavar="ID")
@model_options(needs_model=False)
@CONTEXT
@click.option("--calibration", "calibrated", type=FILE, help="Its thresholds.")
@click.option("--key", default="user", help="Whose request: a user's key of this home.")
@click.option("--signer", metavar="NAME", help="Key that signed its voucher. [default: the key]")
@click.option("--opening", type=FILE, help="The opening, instead of asking the broker.")
@click.option("--output", "-o", "target", type=FILE, help="Evidence to write.")
@click.option("--withhold", is_flag=True, help="Leave question and answer out of the file.")
@click.option("--keyring", is_flag=True, help="Take passwords from the desktop's keyring.")
@pass_session
async def run(session: Session, /, name: str, **options: Any) -> None:
    """Audit the request with this ID, from its trace, and write signed evidence.

    Traces must have been kept (`--traces` of gateway or chat). The broker is asked for the opening
    of its commitment. Exit code 8 if the audit found a cheat; an inconclusive one says why.

    A bill without its commitment (`uncommitted`; the book is enough) or above it (`overbilled`) is
    shown by its signatures: that takes neither --model nor --calibration.
    """
    from hanse.auditor.files import judgement_to_document, read_calibration
    from hanse.auditor.opened_model import open_model
    from hanse.auditor.purchases import audit_purchase, find_overbilled
    from hanse.cli.auditing.purchases import load_purchase, look_for_uncommitted, raise_broken
    from hanse.cli.auditing.showing import judgement_to_rows
    from hanse.cli.tracing.reading import check_new, write_new
    from hanse.protocol.commitments.tree import OPENING_BYTES_MAX
    from hanse.store.files import read_file
    from hanse.verification.audits.judging import Verdict
    from hanse.verification.evidence.files import get_evidence_hash

    calibrated, opening = options["calibrated"], options["opening"]
    calibration = read_calibration(calibrated) if calibrated else None
    keyring = options["keyring"]
    signer = session.unlock_key(options["signer"] or options["key"], use_keyring=keyring)
    broken = await look_for_uncommitted(session, name, options["key"], signer)
    if broken is not None:
        raise_broken(session, broken, options["target"])
    purchase = await load_purchase(
        session,
        name,
        options["key"],
        signer=signer,
        opening=read_file(opening, OPENING_BYTES_MAX) if opening else None,
        use_keyring=keyring,
    )
    broken = find_overbilled(purchase, signer)
    if broken is not None:
        raise_broken(session, broken, options["target"])
    if calibration is None or options["model"] is None:
        raise RequestError("usage", "to recompute an answer takes --model and --calibration")
    request_id = purchase.bought.request.request_id
    target = options["target"] or Path(f"evidence-{request_id[2:14]}.json")
    check_new(target)
    session.output.note("one prefill over question and answer ...")
    with open_model(
        find_audited(options),
        options["runtime"],
        threads=options["threads"],
        context_tokens=options["context"],
        keyed=find_keyed(options),
    ) as model:
        found, data = await asyncio.to_thread(
            audit_purchase,
            purchase,
            model,
            calibration,
            signer,
            session.home / "cache",
            withhold=options["withhold"],
        )
    write_new(target, data)
    document = judgement_to_document(found.judgement) | {
        "request_id": request_id,
        "provider": purchase.bought.offer.provider,
        "evidence": str(target),
        "evidence_hash": get_evidence_hash(data),
    }
    rows = judgement_to_rows(found.judgement)
    session.output.show(
        document,
        lambda: session.output.fields(
            (
                ("request", request_id),
                ("provider", purchase.bought.offer.provider),
                *rows,
                ("evidence", f"{target}, {document['evidence_hash']}"),
            )
        ),
    )
    if found.judgement.verdict is Verdict.CHEAT:
        raise VerificationError(
            "audit_failed",
            f"{purchase.bought.offer.provider} did not run its copy for request {request_id}; "
            f"the evidence is in {target}",
        )


@audit.command_of(
    "replay",
    short_help="Check evidence, and rerun it.",
    examples=(
        ("Everything but the rerun", "hanse audit replay evidence.json"),
        ("With the model", "hanse audit replay evidence.json --model copy.gguf"),
        ("In another runtime, by its own thresholds",
         "hanse audit replay evidence.json --model copy.gguf --runtime torch "
         "--calibration torch.json"),
        ("With the plain model and the copy's key",
         "hanse audit replay evidence.json --model base.gguf --copy copy.gguf.copy.json "
         "--master master.key --runtime torch --calibration torch.json"),
    ),
)  # fmt: skip
@click.argument("file", type=FILE)
@model_options(needs_model=False)
@click.option("--calibration", "calibrated", type=FILE, help="Thresholds instead of the file's.")
@pass_session
async def replay(session: Session, /, file: Path, **options: Any) -> None:
    """Check somebody's evidence offline; with --model make its audit again.

    A broken promise (`uncommitted`, `overbilled`) takes no model: it is checked in full. Exit code
    8 if the file does not hold, or the rerun comes to another verdict.
    """
    from hanse.auditor.files import (
        breach_to_document,
        judgement_to_document,
        read_breach,
        read_calibration,
        read_evidence,
    )
    from hanse.auditor.replaying import rerun
    from hanse.cli.auditing.showing import breach_to_rows, judgement_to_rows, replay_to_rows

    keyed, broken = find_keyed(options), read_breach(file)
    if broken is not None:
        document, lines = breach_to_document(*broken), breach_to_rows(*broken)
        session.output.show(document, lambda: session.output.fields(lines))
        return
    calibrated = options["calibrated"]
    calibration = read_calibration(calibrated) if calibrated else None
    evidence, digest = read_evidence(file)
    statement, receipt = evidence.statement, evidence.receipt.receipt.receipt
    document = judgement_to_document(statement.judgement) | {
        "checked": True,
        "evidence_hash": digest,
        "auditor": statement.auditor,
        "provider": receipt.provider,
        "receipt_key": evidence.receipt.receipt_key,
        "has_content": evidence.content is not None,
        "replay": None,
    }
    rows = [
        ("checked", "signatures, content, calibration and verdict fit together"),
        ("evidence", digest),
        ("auditor", statement.auditor),
        ("provider", receipt.provider),
        ("receipt key", f"{evidence.receipt.receipt_key} (ask the Registry whose it was)"),
        *judgement_to_rows(statement.judgement),
    ]
    found = None
    if options["model"]:
        session.output.note("one prefill over question and answer ...")
        found = await asyncio.to_thread(
            rerun,
            evidence,
            find_audited(options),
            options["runtime"],
            options["threads"],
            calibration,
            session.home / "cache",
            keyed,
        )
        document["replay"] = judgement_to_document(found.judgement) | {
            "agrees": found.agrees,
            "prompt_agrees": found.prompt_agrees,
            "fit_agrees": found.fit_agrees,
            "distance_ppm": found.distance_ppm,
        }
        rows += replay_to_rows(found)
    session.output.show(document, lambda: session.output.fields(rows))
    if found is not None and not found.agrees:
        raise VerificationError(
            "evidence_invalid",
            f"the file says {statement.judgement.verdict}, the rerun {found.judgement.verdict}",
        )


audit.add_command(calibrate)
audit.add_command(report)
audit.add_command(draw)
audit.add_command(watch)
