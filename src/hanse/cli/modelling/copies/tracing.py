"""`hanse models trace`: whose copy a leaked file is, or what an endpoint answers with."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.modelling.copies.asking import ask_endpoint
from hanse.cli.modelling.copies.master_keys import read_master
from hanse.cli.modelling.places import check_extra, find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.protocol.commitments.copies import CopyDescription

Row = tuple["CopyDescription", float]


@command(
    "trace",
    short_help="Name whose copy a leaked file or an endpoint is.",
    examples=(
        ("A file that turned up, against all copies ever made",
         "hanse models trace leaked.gguf --base packaged --copies ./copies --master master.key"),
        ("A server that should not have the model",
         "hanse models trace --endpoint http://127.0.0.1:8080/v1 --base packaged --copies ."),
    ),
)  # fmt: skip
@click.argument(
    "leaked", required=False, type=click.Path(path_type=Path, dir_okay=False), metavar="[FILE]"
)
@click.option("--base", required=True, help="The model that the copies were made of (GGUF).")
@click.option(
    "--copies",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder with the candidates' descriptions (*.copy.json); for --endpoint their files too.",
)
@click.option(
    "--master",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Master key of the copies; for a file.",
)
@click.option("--endpoint", metavar="URL", help="An OpenAI-style API that lists logprobs.")
@click.option("--model", "name", default="", help="The model to ask the endpoint for.")
@pass_session
async def trace(
    session: Session,
    /,
    leaked: Path | None,
    base: str,
    copies: Path,
    master: Path | None,
    endpoint: str | None,
    name: str,
) -> None:
    """Name the provider whose copy FILE is, or the model behind an endpoint; nobody, if none fits.

    Of a file the rounding is compared: it stays when the basis is undone, turned again or rounded
    again. Of an endpoint the logprobs of a few answers are, at the price of one prefill a copy.
    """
    check_extra("numpy", "gguf", "cyllama")
    if (leaked is None) == (endpoint is None):
        raise RequestError("usage", "name either a FILE or an --endpoint")
    candidates = _read_candidates(copies)
    source = find_model(base)
    if leaked is not None:
        from hanse.models.copies.leaks.tracing import SCORE_MIN

        rows = _trace_file(session, leaked, source, list(candidates.values()), master)
    else:
        from hanse.models.copies.leaks.answer_tracing import SCORE_MIN

        rows = await _trace_endpoint(session, endpoint or "", name, source, candidates)
    _show(session, rows, SCORE_MIN)


def _read_candidates(folder: Path) -> "dict[Path, CopyDescription]":
    from hanse.models.copies import read_copy_description
    from hanse.protocol.commitments.copies import COPY_SUFFIX

    paths = sorted(folder.glob(f"*{COPY_SUFFIX}"))
    if not paths:
        raise RequestError("not_found", f"{folder} holds no description of a copy (*{COPY_SUFFIX})")
    files = [path.with_name(path.name.removesuffix(COPY_SUFFIX)) for path in paths]
    return {file: read_copy_description(file) for file in files}


def _trace_file(
    session: Session,
    leaked: Path,
    source: Path,
    candidates: "Sequence[CopyDescription]",
    master: Path | None,
) -> list[Row]:
    from hanse.models.copies.architectures import SourceModel
    from hanse.models.copies.leaks.tracing import trace_file
    from hanse.models.copies.weight_files import WeightFile

    if master is None:
        raise RequestError("usage", "a file is traced with --master FILE, the copies' master key")
    key = read_master(master)
    with show_progress(session.output) as progress:
        found = trace_file(SourceModel(source), WeightFile(leaked), key, candidates, progress)
    return [(suspicion.copy, suspicion.score) for suspicion in found]


async def _trace_endpoint(
    session: Session,
    endpoint: str,
    name: str,
    source: Path,
    candidates: "dict[Path, CopyDescription]",
) -> list[Row]:
    from hanse.models.copies.leaks.answer_tracing import compare_answers

    canaries = {token for copy in candidates.values() for token in copy.canary_ids}
    told = await ask_endpoint(endpoint, name, source, sorted(canaries))
    with show_progress(session.output) as progress:
        scores = compare_answers(source, list(candidates), told, os.cpu_count() or 1, progress)
    rows = zip(candidates.values(), scores, strict=True)
    return sorted(rows, key=lambda row: -row[1])


def _show(session: Session, rows: Sequence[Row], score_min: float) -> None:
    named = [copy.provider for copy, score in rows if score >= score_min]
    output = session.output
    table = [
        (
            copy.provider,
            copy.epoch,
            copy.quantisation,
            f"{score:.3f}",
            "named" if score >= score_min else "",
        )
        for copy, score in rows
    ]
    document: dict[str, Any] = {
        "named": named,
        "score_min": score_min,
        "candidates": [
            {
                "provider": copy.provider,
                "epoch": copy.epoch,
                "quantisation": copy.quantisation,
                "file_sha256": copy.file_sha256,
                "score": round(score, 6),
            }
            for copy, score in rows
        ],
    }
    output.show(document, lambda: output.table(("provider", "epoch>", "type", "score>", ""), table))
    if not named:
        output.note(f"Nobody is named: no score reaches {score_min}.")
