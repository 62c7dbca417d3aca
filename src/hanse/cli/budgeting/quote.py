"""`hanse quote`: what a request would cost by each provider, before it is made."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError


@command(
    "quote",
    short_help="Price a request before it is made.",
    examples=(
        ("A question and at most 200 tokens", 'hanse quote -m small "What is a voucher?"'),
        ("A body that an application would send", "hanse quote --body request.json"),
        (
            "The lowest maximum, for a script",
            'hanse quote -m small "Hello" --json | jq -r ".quotes[0].maximum_fee"',
        ),
    ),
)
@click.argument("prompt", default="")
@click.option("-m", "--model", help="The model, if no body is given.")
@click.option("--max-tokens", type=click.IntRange(1), default=200, help="Of the answer.")
@click.option(
    "--body",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="JSON body of a request, instead of a prompt.",
)
@click.option("--path", default="/v1/chat/completions", help="Path that the body is for.")
@pass_session
async def quote(session: Session, /, prompt: str, **options: Any) -> None:
    """Price PROMPT, or a body, by each provider of its model: as expected, and at most.

    The maximum is what a voucher would authorise; what is paid is metered, and never more. Needs no
    key and buys nothing.
    """
    from hanse.cli.buying.market import look_at_market
    from hanse.cli.network import load_network
    from hanse.sdk.purchase.ask import read_ask
    from hanse.sdk.purchase.quoting import quote_offers

    ask = read_ask(options["path"], _read_body(prompt, options))
    output, network = session.output, load_network(session.home)
    units = network.units
    with output.wait("asking chain and brokers ..."):
        report = await look_at_market(session, network)
    quotes = quote_offers((seen.listed for seen in report.offers), ask.get_shape())
    if not quotes:
        raise RequestError("model_not_found", f"no provider offers {ask.model:.80}")
    healths = {seen.listed.provider: seen.health for seen in report.offers}
    rows = [
        (
            one.provider,
            units.format_number(one.expected_fee),
            units.format_number(one.maximum_fee),
            one.output_tokens_max,
            healths[one.provider],
        )
        for one in quotes
    ]
    columns = ("provider", f"expected, {units.symbol}>", "at most>", "output tokens>", "health")
    documents = [{**one.to_document(), "health": healths[one.provider]} for one in quotes]
    output.show({"model": ask.model, "quotes": documents}, lambda: output.table(columns, rows))


def _read_body(prompt: str, options: dict[str, Any]) -> bytes:
    import msgspec

    if options["body"] is not None:
        if prompt or options["model"]:
            raise click.UsageError("--body takes the place of PROMPT and --model")
        found: bytes = options["body"].read_bytes()
        return found
    if not prompt or not options["model"]:
        raise click.UsageError("give PROMPT and --model, or --body")
    return msgspec.json.encode(
        {
            "model": options["model"],
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": options["max_tokens"],
        }
    )
