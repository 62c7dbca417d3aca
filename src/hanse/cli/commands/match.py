"""`hanse match`: who would be asked for a request, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.buying.choosing_options import POLICY_HELP
from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.cli.buying.matching import MatchReport
    from hanse.cli.network import Network
    from hanse.market import Needs, RequestShape
    from hanse.market.reputation import Reputation


@command(
    "match",
    short_help="Show who would be asked for a request, and why.",
    examples=(
        ("The cheapest for a usual request", "hanse match -m smollm2-135m-instruct"),
        (
            "Everybody with scores and reasons, speed counting most",
            "hanse match -m smollm2-135m-instruct --policy fastest --explain",
        ),
        (
            "By the reputations that follow from audits, and why",
            "hanse match -m smollm2-135m-instruct --policy balanced --evidence ./audits --explain",
        ),
        (
            "Where a session belongs, for a program",
            "hanse match -m smollm2-135m-instruct --session npc-7 --json",
        ),
    ),
)
@click.option("-m", "--model", required=True, help="What is asked for.")
@click.option("--policy", default="cheapest", help=POLICY_HELP)
@click.option("--session", "session_name", default="", help="A session's name, for affinity.")
@click.option("--input-tokens", type=click.IntRange(1), default=500, help="Of the request.")
@click.option("--output-tokens", type=click.IntRange(1), default=256, help="At most, of it.")
@click.option("--max-fee", metavar="AMOUNT", help="Most that it may cost.")
@click.option("--region", default="", help="Only offers of this region.")
@click.option("--own-region", default="", help="Where you are, for the weight of locality.")
@click.option(
    "--verifiability",
    type=click.Choice(["tee", "embedded", "sampled", "reputation"]),
    default="reputation",
    help="The weakest check accepted.",
)
@click.option("--quantisation", default="", help="Only this one, such as Q8_0.")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of evidence files of audits: reputations follow from them.",
)
@click.option("--explain", is_flag=True, help="Show everybody: scores in parts, and reasons.")
@pass_session
async def match(session: Session, /, **options: Any) -> None:
    """Rank the market for one request, as a gateway would.

    Offers and heartbeats are fetched now. Speeds and failures are what a running gateway has
    measured; here everybody counts as never asked. Reputations come from `--evidence`. For a
    gateway's own decision send its request with the header `hanse-explain: 1`. Needs no key. If
    nobody can be asked, the exit code says so, also with `--explain`.
    """
    from hanse.cli.buying.matching import match_market
    from hanse.cli.network import load_network

    output, network = session.output, load_network(session.home)
    shape, needs = _read_request(options, network)
    with output.wait("asking chain and brokers ..."):
        report = await match_market(
            session, network, shape, needs, options["own_region"], options["evidence"]
        )
    if report.error is not None and not options["explain"]:
        raise report.error
    document = _to_document(report)
    output.show(document, lambda: _render(session, report, network, options["explain"]))
    if options["explain"]:
        for exclusion in report.match.exclusions:
            output.note(f"left out: {exclusion.reason}")
        for service, reason in report.missing.items():
            output.note(f"left out: {service} gives no offer: {reason}")
        for reputation in report.reputations.values():
            for line in reputation.explain():
                output.note(line)
        for name, reason in report.refused.items():
            output.note(f"no evidence: {name}: {reason}")
    if report.error is not None:
        raise report.error


def _read_request(options: dict[str, Any], network: "Network") -> tuple["RequestShape", "Needs"]:
    from hanse.market import Needs, RequestShape, read_policy
    from hanse.market.scoring import BYTES_PER_TOKEN
    from hanse.protocol.wire import parse_region

    named = options["session_name"].encode()
    shape = RequestShape(
        "chat",
        options["model"],
        options["input_tokens"] * BYTES_PER_TOKEN,
        options["output_tokens"],
        affinity=named,
        is_session=bool(named),
    )
    needs = Needs(
        max_fee=network.units.parse(options["max_fee"]) if options["max_fee"] else None,
        region=parse_region(options["region"]) if options["region"] else "",
        verifiability_min=options["verifiability"],
        quantisation=options["quantisation"],
        policy=read_policy(options["policy"]),
        explain_to=lambda _: None,
    )
    return shape, needs


def _to_document(report: "MatchReport") -> dict[str, Any]:
    from hanse.market.policy import WEIGHTS

    choice = report.choice
    return {
        "provider": choice.candidate.listed.provider if choice else None,
        "why": choice.why if choice else None,
        "policy": choice.policy.name if choice else None,
        "error": None if report.error is None else report.error.message,
        "ranked": [
            {
                "provider": one.row.listed.provider,
                "service_id": one.row.listed.offer.service_id,
                "score": round(one.score, 6),
                "parts": {
                    name: round(part, 6) for name, part in zip(WEIGHTS, one.parts, strict=True)
                },
                "expected_fee": str(one.candidate.expected_fee),
                "maximum_fee": str(one.candidate.maximum_fee),
                "region": one.row.listed.offer.region,
                "free_slots": report.board.presence.get_free(one.row.service),
            }
            for one in report.match.ranked
        ],
        "left_out": [
            {"provider": one.listed.provider, "kind": one.kind, "reason": one.reason}
            for one in report.match.exclusions
        ],
        "missing": report.missing,
        "reputations": {
            provider: _to_reputation(one) for provider, one in report.reputations.items()
        },
        "evidence_refused": report.refused,
    }


def _to_reputation(reputation: "Reputation") -> dict[str, Any]:
    return {
        "risk_ppm": reputation.risk_ppm,
        "prior_ppm": reputation.prior_ppm,
        "newness_ppm": reputation.newness_ppm,
        "unheard": reputation.unheard,
        "parts": [
            {
                "word": part.testimony.word.value,
                "witness": part.testimony.witness,
                "evidence_hash": part.testimony.evidence_hash,
                "at_s": part.testimony.at_s,
                "is_against": part.is_bad,
                "stake": str(part.weight),
                "share_ppm": part.share_ppm,
            }
            for part in reputation.parts
        ],
    }


def _render(session: Session, report: "MatchReport", network: "Network", explains: bool) -> Any:
    output, choice = session.output, report.choice
    if not explains and choice is not None:
        offer = choice.candidate.listed.offer
        return output.fields(
            (
                ("provider", offer.provider),
                ("why", choice.why),
                ("policy", choice.policy.name),
                ("expected", network.units.format(choice.candidate.expected_fee)),
                ("at most", network.units.format(choice.candidate.maximum_fee)),
            )
        )
    chosen = choice.candidate.listed if choice else None
    rows = [
        (
            ("*" if one.row.listed is chosen else "") + one.row.listed.provider,
            f"{one.score:.4f}",
            *(f"{part:.4f}" for part in one.parts),
            network.units.format_number(one.candidate.expected_fee),
            _format_free(report.board.presence.get_free(one.row.service)),
        )
        for one in report.match.ranked
    ]
    columns = ("provider", "score>", "price>", "speed>", "reliability>", "verifiability>")
    more = ("locality>", f"expected, {network.units.symbol}>", "free>")
    return output.table((*columns, *more), rows) if rows else "Nobody fits."


def _format_free(free: int | None) -> str:
    return "?" if free is None else str(free)
