"""`hanse observe`: sign what was seen of a provider, for everybody's reputations."""

import secrets
import time
from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import command, pass_session
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError


@command(
    "observe",
    short_help="Sign that a provider failed, or how long it took.",
    examples=(
        ("It did not answer", "hanse observe 0x5fbd... --failed --key auditor -o seen/1.json"),
        (
            "Its first token took 350 ms",
            "hanse observe 0x5fbd... --first-token-ms 350 --key auditor -o seen/2.json",
        ),
    ),
)
@click.argument("provider")
@click.option("--failed", is_flag=True, help="A request failed or was not answered.")
@click.option("--first-token-ms", type=click.IntRange(0, 600_000), help="Until the first token.")
@click.option("--request", "request_id", help="Its request id. [default: a random one]")
@click.option("--key", default="user", help="Who says so: a key of this home, with a stake.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the file goes. [default: standard output]",
)
@pass_session
def observe(session: Session, /, **options: Any) -> None:
    """Write a file for a folder of evidence (`hanse match --evidence`).

    It weighs by the stake of its key, as provider or as auditor, and little: nobody can check it.
    Audits are not observed but shown: `hanse audit run`.
    """
    import json

    from hanse.cli.network import load_network
    from hanse.market.reputation import Word
    from hanse.market.reputation.observation import Observation, sign_observation
    from hanse.protocol.eip712 import Domain
    from hanse.protocol.signatures import parse_address

    milliseconds = options["first_token_ms"]
    if options["failed"] == (milliseconds is not None):
        raise RequestError("usage", "give either --failed or --first-token-ms NUMBER")
    provider = parse_address(options["provider"], "provider")
    deployment = load_network(session.home).deployment
    key = session.unlock_key(options["key"], use_keyring=options["keyring"])
    seen = Observation(
        provider,
        key.address,
        Word.REQUEST_FAILED if options["failed"] else Word.FIRST_TOKEN,
        milliseconds or 0,
        (options["request_id"] or "0x" + secrets.token_hex(32)).lower(),
        int(time.time()),
    )
    raw = sign_observation(seen, Domain(deployment.chain_id, deployment.escrow), key)
    if options["output"] is not None:
        options["output"].write_bytes(raw)
    document = json.loads(raw)
    shown = {"witness": seen.witness, "provider": provider, "word": seen.word.value}
    session.output.show(document, lambda: session.output.fields(shown.items()))
    if options["output"] is None:
        session.output.note("nothing was kept: name a file by --output, or take --json")
