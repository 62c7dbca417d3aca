"""`hanse audit calibrate`: what was asked for, checked before it is measured."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.auditor.calibrating.noise import (
    Load,
    Questions,
    Sample,
    Upstream,
    calibrate,
    measure_noise,
)
from hanse.auditor.opened_model import OpenedModel, open_model
from hanse.cli.auditing.model_options import find_audited, find_keyed
from hanse.cli.modelling.places import find_model
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session
from hanse.cli.tracing.reading import check_new, write_new
from hanse.engines.proving.copy_in_service import find_copy, read_copy
from hanse.protocol.commitments.copies import CopyDescription
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.verification.audits.bounds import get_carried_quantile, get_count_needed
from hanse.verification.audits.calibration import Calibration, encode_calibration

_LOAD = re.compile(r"([1-9]\d{0,2})x([1-9]\d{0,2})")
LOADS_DEFAULT = ("1x1", "2x4")


@dataclass(frozen=True)
class Order:
    """One calibration as it was asked for."""

    options: dict[str, Any]
    loads: tuple[Load, ...]
    upstream: Upstream | None = None


def plan(options: dict[str, Any]) -> Order:
    """Check what was asked for.

    Raises:
        RequestError: `usage`: the answers would not carry the quantile, a load is none, or the
            file is there already.
    """
    check_new(options["target"])
    answers, quantile = options["answers"], options["quantile"]
    confidence = options["confidence"]
    needed = get_count_needed(quantile, confidence)
    if answers < needed:
        raise RequestError(
            "usage",
            f"{answers} answers carry at most the quantile "
            f"{get_carried_quantile(answers, confidence):.4f} at confidence {confidence}: ask for "
            f"that by --quantile, or for --answers {needed}",
        )
    loads = []
    for text in options["loads"] or LOADS_DEFAULT:
        found = _LOAD.fullmatch(text)
        if found is None:
            raise RequestError("usage", f"--load {text!r:.20} is not THREADSxCONCURRENT: 2x4")
        loads.append(Load(int(found.group(1)), int(found.group(2))))
    return Order(options, tuple(loads), _find_upstream(options))


async def make(session: Session, order: Order) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Measure, write the document, and say what is in it."""
    options = order.options
    cache_dir = session.home / "cache"
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_model(
        find_audited(options),
        options["runtime"],
        threads=options["threads"],
        context_tokens=options["context"],
        keyed=find_keyed(options),
    ) as model:
        root = _get_root(model, options["manifest"])
        served = find_served(model.copy, options)
        with show_progress(session.output) as progress:
            sample = await measure_noise(
                model,
                order.upstream or find_model(options["served"] or options["model"]),
                Questions(options["answers"], options["tokens"], options["prompt_tokens"]),
                order.loads,
                cache_dir,
                progress,
            )
        made = calibrate(
            sample,
            model,
            root,
            served.quantisation if served else "unknown",
            options["quantile"],
            options["confidence"],
            order.upstream,
        )
    write_new(options["target"], encode_calibration(made))
    return _describe(made, sample, options["target"])


def _find_upstream(options: dict[str, Any]) -> Upstream | None:
    named: list[Any] = [
        options.get(name) for name in ("upstream", "upstream_model", "served_copy", "served_by")
    ]
    if not any(named):
        return None
    if not all(named) or options["served"]:
        raise RequestError(
            "usage",
            "--upstream, --upstream-model, --served-copy and --served-by belong together, without "
            "--served",
        )
    return Upstream(*named)


def _get_root(model: OpenedModel, manifest: str | None) -> Hash32:
    if manifest is not None:
        return parse_hash32(manifest, "--manifest")
    if model.copy is None:
        raise RequestError(
            "usage", f"{model.path.name} is no copy: name its manifest's root with --manifest"
        )
    return model.copy.base_root


def find_served(audited: CopyDescription | None, options: dict[str, Any]) -> CopyDescription | None:
    """What the served file says of itself; None of a plain model. It need not be the auditor's."""
    if options["served_copy"]:
        return read_copy(options["served_copy"]).description
    if options["served"]:
        found = find_copy(find_model(options["served"]))
        return found.description if found else None
    return audited


def _describe(
    made: Calibration, sample: Sample, target: Path
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    left_out = sum(sample.misfits.values())
    document = {
        "file": str(target),
        "answers": len(sample.statistics),
        "tokens": sample.tokens,
        "left_out": sample.misfits,
        "context_tokens": sample.longest,
        "answer_tokens": sample.longest_answer,
        "quantile": made.quantile_ppm / 1e6,
        "confidence": made.confidence_ppm / 1e6,
        "thresholds": [
            {"statistic": one.statistic, "limit_ppm": one.limit_ppm, "answers": one.answers,
             "worst_ppm": one.largest_ppm[0]}
            for one in made.thresholds
        ],
    }  # fmt: skip
    rows = [
        ("written", str(target)),
        ("of", f"{len(sample.statistics)} honest answers, {sample.tokens} tokens; "
               f"{left_out} left out"),
        ("justifies", f"the quantile {made.quantile_ppm / 1e6} at confidence "
                      f"{made.confidence_ppm / 1e6}, contexts to {sample.longest} tokens, "
                      f"answers to {sample.longest_answer}"),
        *((one.statistic, f"{one.limit_ppm / 1e6:.4f} (worst of {one.answers}: "
                          f"{one.largest_ppm[0] / 1e6:.4f})") for one in made.thresholds),
    ]  # fmt: skip
    return document, rows
