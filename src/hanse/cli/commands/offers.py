"""`hanse offers`: what is on offer, and from whom."""

from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.cli.buying.market import SeenOffer


@command(
    "offers",
    short_help="List what is on offer, and from whom.",
    examples=(
        ("Everything on offer, cheapest first within a model", "hanse offers"),
        ("One model", "hanse offers -m smollm2-135m-instruct"),
        ("Names of the models, for a script", "hanse offers --json | jq -r '.offers[].model'"),
    ),
)
@click.option("-m", "--model", help="Only this model.")
@pass_session
async def offers(session: Session, /, model: str | None) -> None:
    """List every verified offer of the market with prices and health.

    Prices are for a million tokens (of speech: characters, of transcriptions: seconds of audio,
    and nothing for what comes out). "checked by" is how the provider's work can be checked:
    reputation means by receipts alone. Needs no key.
    """
    from hanse.cli.buying.market import look_at_market
    from hanse.cli.network import load_network

    output, network = session.output, load_network(session.home)
    units = network.units
    with output.wait("asking chain and brokers ..."):
        report = await look_at_market(session, network)
    found = [seen for seen in report.offers if model in (None, seen.listed.offer.model)]
    rows = [
        (
            seen.listed.offer.model,
            seen.listed.offer.service_type,
            seen.listed.provider,
            units.format_number(seen.listed.offer.prices.input_per_mtok),
            units.format_number(seen.listed.offer.prices.cached_per_mtok),
            units.format_number(seen.listed.offer.prices.output_per_mtok),
            seen.listed.offer.context_tokens,
            seen.listed.offer.verifiability,
            seen.health,
        )
        for seen in found
    ]
    columns = (
        "model",
        "for",
        "provider",
        f"in, {units.symbol}>",
        "cached>",
        "out>",
        "context>",
        "checked by",
        "health",
    )
    output.show(
        {"offers": [_to_document(seen) for seen in found], "missing": report.missing},
        lambda: output.table(columns, rows) if rows else "Nothing is on offer.",
    )
    if found:
        output.note(
            f"prices: {units.symbol} for a million tokens; of speech characters, of transcriptions "
            "seconds of audio"
        )
    for service, reason in report.missing.items():
        output.note(f"left out: {service}: {reason}")


def _to_document(seen: "SeenOffer") -> dict[str, Any]:
    from hanse.protocol.wire import offer_to_json

    return {
        **offer_to_json(seen.listed.signed),
        "offer_hash": seen.listed.offer_hash,
        "receipt_key": seen.listed.receipt_key,
        "health": seen.health,
    }
