"""`hanse attest`: the commands; what they do is in `hanse.cli.attesting.looking`."""

from pathlib import Path
from typing import Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.session import Session

_FILE = click.Path(path_type=Path, dir_okay=False)
_AT_HELP = "The time that it must be valid at, unix seconds. [default: now]"


@group(
    "attest",
    short_help="Verify what runs at a provider, by its hardware's word.",
    examples=(
        ("What a machine's quote allows to ask for, to begin a policy with",
         "hanse attest policy attestation.json"),
        ("Verify an attestation that was asked for with this nonce",
         "hanse attest verify attestation.json --policy p.json --nonce 0x5f0c..."),
        ("Who is left out, and why", "hanse match -m smollm2-135m-instruct --explain"),
    ),
)  # fmt: skip
def attest() -> None:
    """Verify attestations: TDX quotes to Intel's root, event logs, and what they bind.

    Requests go to offers of class tee only while the machine is verified by the policy in
    HOME/attestation-policy.json; without one they are left out.
    """


@attest.command_of(
    "verify",
    short_help="Verify an attestation by a policy.",
    examples=(
        ("One that a broker gave for your nonce",
         "hanse attest verify attestation.json --policy p.json --nonce 0x5f0c..."),
        ("As of a time, for a program",
         "hanse attest verify a.json --policy p.json --nonce 0x5f0c... --at 1780000000 --json"),
    ),
)  # fmt: skip
@click.argument("file", type=_FILE)
@click.option("--policy", "policy_file", type=_FILE, help="[default: the home's]")
@click.option("--nonce", required=True, help="That you made, at random, and asked with.")
@click.option("--provider", default="", help="Whose it must be. [default: whom FILE names]")
@click.option("--receipt-key", default="", help="Registered key. [default: the one FILE names]")
@click.option("--at", type=click.IntRange(0), help=_AT_HELP)
@pass_session
async def verify(session: Session, /, **options: Any) -> None:
    """Verify the attestation in FILE, as GET /hanse/v1/attestation/NONCE gave it.

    Every failure ends with its own code and exit status 8. Whether the nonce is fresh and yours is
    for you to know: here it counts as made just now.
    """
    from hanse.cli.attesting.looking import verify_file

    verify_file(session, options)


@attest.command_of(
    "policy",
    short_help="Print a policy that allows what a quote shows.",
    examples=(
        ("Of an attestation, to be read and edited",
         "hanse attest policy attestation.json > attestation-policy.json"),
        ("Of a bare quote", "hanse attest policy quote.bin --collateral collateral.json"),
    ),
)  # fmt: skip
@click.argument("file", type=_FILE)
@click.option("--collateral", type=_FILE, help="For a FILE that is a bare quote.")
@click.option("--name", default="image-1", help="What to call the image.")
@click.option("--at", type=click.IntRange(0), help=_AT_HELP)
@pass_session
async def policy(session: Session, /, **options: Any) -> None:
    """Verify the quote in FILE to Intel's root, then print a policy that allows exactly it.

    It is a beginning: that a quote is genuine does not make what it measures good. Compare the
    measurements with those of an image that you have built or read. Nonce and keys are not judged.
    """
    from hanse.cli.attesting.looking import show_policy

    show_policy(session, options)


@attest.command_of(
    "collateral",
    short_help="Fetch what Intel says of a quote's platform.",
    examples=(
        ("For a broker to hand out; run it daily",
         "hanse attest collateral quote.bin --output collateral.json"),
        ("From a cache of your own",
         "hanse attest collateral quote.bin --pccs https://pccs.example --output c.json"),
    ),
)  # fmt: skip
@click.argument("file", type=_FILE)
@click.option("--pccs", default="", metavar="URL", help="Whom to ask. [default: Intel]")
@click.option("--output", "target", type=_FILE, required=True, help="File to write.")
@pass_session
async def collateral(session: Session, /, file: Path, pccs: str, target: Path) -> None:
    """Fetch TCB info, QE identity and revocation lists for the quote in FILE.

    Nothing of it is believed: whoever verifies a quote verifies its collateral.
    """
    from hanse.cli.attesting.looking import fetch_collateral

    await fetch_collateral(session, file, pccs, target)
