"""The commands of `hanse disputes` about challenges, panels and votes.

`hanse.cli.commands.disputes` adds them to its group.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import HanseGroup, option_block, pass_session
from hanse.cli.session import Session

if TYPE_CHECKING:
    from hanse.auditor.panels.court import Case, Court
    from hanse.chain import Call

VERDICT = click.Choice(["upheld", "rejected"])

_acts_as = option_block(
    click.option("--key", default="user", help="Who acts: a key of this home with native coin."),
    click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring."),
)


def add_panel_commands(disputes: HanseGroup) -> None:
    """Put this module's commands into the group."""
    _add_looking(disputes)
    _add_accusing(disputes)
    _add_judging(disputes)
    _add_auditing(disputes)


def _add_looking(disputes: HanseGroup) -> None:
    @disputes.command_of(
        "challenges",
        short_help="List challenges that panels judge, or show one.",
        examples=(
            ("All of them", "hanse disputes challenges"),
            ("One, by the beginning of its name", "hanse disputes challenges 0x5f0c"),
            ("Those that an auditor judges", "hanse disputes challenges --seated auditor"),
        ),
    )
    @click.argument("challenge", required=False, metavar="[CHALLENGE]")
    @click.option("--seated", metavar="KEY", help="Only where this key of the home has a seat now.")
    @pass_session
    async def challenges(session: Session, /, challenge: str | None, seated: str | None) -> None:
        """List what was ever challenged on the chain, oldest first, or show one CHALLENGE."""
        from hanse.cli.panels.opening import open_court
        from hanse.cli.panels.showing import case_to_document, render_case

        async with open_court(session, seated or "") as court:
            if challenge is not None:
                case = await court.get_case(challenge)
                document = case_to_document(court, case)
                session.output.show(document, lambda: render_case(session, court, case))
                return
            cases = [await court.read_case(event) for event in await court.list_challenges()]
            shown = [case for case in cases if seated is None or court.address in case.panel]
            documents = [case_to_document(court, case) for case in shown]
        names = ("challenge", "provider", "stage", "round", "verdict", "next")
        rows = [[str(document[name]) for name in names] for document in documents]
        session.output.show(
            {"challenges": documents},
            lambda: session.output.table(names, rows) if rows else "There is none.",
        )


def _add_accusing(disputes: HanseGroup) -> None:
    @disputes.command_of(
        "challenge",
        short_help="Have a panel of auditors judge an answer.",
        examples=(
            ("By an auditor's evidence", "hanse disputes challenge evidence.json --uri URL"),
            ("By other evidence", "hanse disputes challenge report.pdf --receipt receipt.json"),
            ("A planted one", "hanse disputes challenge evidence.json --known-answer upheld"),
        ),
    )
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
    @click.option(
        "--receipt",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The receipt's file. [default: the one inside an evidence file]",
    )
    @click.option("--uri", default="", help="Where auditors find FILE; at most 256 bytes.")
    @click.option(
        "--known-answer",
        type=VERDICT,
        help="Plant a case whose right verdict is this, to catch auditors that do not look.",
    )
    @_acts_as
    @pass_session
    async def challenge(
        session: Session,
        /,
        file: Path,
        receipt: Path | None,
        uri: str,
        known_answer: str | None,
        key: str,
        keyring: bool,
    ) -> None:
        """Accuse the provider that signed a receipt, with FILE as evidence.

        Takes a bond and the panel's fees. If the panel upholds it the provider is condemned and you
        are paid; if it rejects it half of the bond is burned and half is the provider's. The sealed
        answer stays in this home's folder: `hanse disputes close` opens it, and only then are you
        paid.
        """
        from hanse.cli.panels.accusing import accuse

        await accuse(session, file, receipt, uri, known_answer, key, keyring)

    @disputes.command_of(
        "respond",
        short_help="Lay the provider's own evidence beside a challenge.",
        examples=(("The accused", "hanse disputes respond 0x5f0c mine.json --key provider"),),
    )
    @click.argument("challenge")
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
    @click.option("--uri", default="", help="Where auditors find FILE; at most 256 bytes.")
    @_acts_as
    @pass_session
    async def respond(
        session: Session, /, challenge: str, file: Path, uri: str, key: str, keyring: bool
    ) -> None:
        """Post the hash of FILE, the accused provider's side of a CHALLENGE."""
        from hanse.cli.panels.accusing import read_evidence
        from hanse.verification.evidence.files import get_evidence_hash

        evidence_hash = get_evidence_hash(read_evidence(file))
        await _send(
            session,
            challenge,
            key,
            keyring,
            lambda court, case: court.disputes.respond(case.name, evidence_hash, uri),
        )

    @disputes.command_of(
        "appeal",
        short_help="Have a larger panel of others judge again.",
        examples=(("Within the appeal time", "hanse disputes appeal 0x5f0c"),),
    )
    @click.argument("challenge")
    @_acts_as
    @pass_session
    async def appeal(session: Session, /, challenge: str, key: str, keyring: bool) -> None:
        """Appeal a CHALLENGE that was decided; once, and final.

        Takes twice the bond and the larger panel's fees. Anyone may: who is right gets them back.
        """
        await _send(
            session,
            challenge,
            key,
            keyring,
            lambda court, case: court.disputes.appeal(case.name),
            pays=lambda terms: 2 * terms.bond + terms.appeal_seats * terms.seat_fee,
        )


def _add_judging(disputes: HanseGroup) -> None:
    @disputes.command_of(
        "vote",
        short_help="Seal a vote on a challenge.",
        examples=(("After rerunning it", "hanse disputes vote 0x5f0c upheld --key auditor"),),
    )
    @click.argument("challenge")
    @click.argument("verdict", type=VERDICT)
    @_acts_as
    @pass_session
    async def vote(
        session: Session, /, challenge: str, verdict: str, key: str, keyring: bool
    ) -> None:
        """Seal the VERDICT of an auditor who sits on the CHALLENGE's panel.

        The salt is kept in this home's folder; `hanse disputes reveal` shows the vote. Who does not
        reveal is fined, and a challenge may be planted: look before you vote.
        """
        from hanse.cli.panels.judging import seal

        await seal(session, challenge, verdict, key, keyring)

    @disputes.command_of(
        "reveal",
        short_help="Reveal a sealed vote.",
        examples=(("When all have sealed theirs", "hanse disputes reveal 0x5f0c --key auditor"),),
    )
    @click.argument("challenge")
    @_acts_as
    @pass_session
    async def reveal(session: Session, /, challenge: str, key: str, keyring: bool) -> None:
        """Show the vote that this key sealed on a CHALLENGE."""
        from hanse.auditor.panels.steps import get_vote

        def build(court: "Court", case: "Case") -> "Call":
            sealed, verdict = get_vote(session.home, court, case)
            return court.disputes.reveal_vote(case.name, verdict, sealed.salt)

        await _send(session, challenge, key, keyring, build)

    @disputes.command_of(
        "close",
        short_help="Take a challenge to its next stage: draw, tally, close.",
        examples=(("Whatever is due", "hanse disputes close 0x5f0c"),),
    )
    @click.argument("challenge")
    @_acts_as
    @pass_session
    async def close(session: Session, /, challenge: str, key: str, keyring: bool) -> None:
        """Do what is due with a CHALLENGE; anyone may.

        Draws the panel, counts the votes, and closes it when nothing can be appealed any more: the
        challenger opens its sealed answer by that, anyone else waits until its time is over.
        """
        from hanse.auditor.panels.steps import build_next

        await _send(
            session,
            challenge,
            key,
            keyring,
            lambda court, case: build_next(session.home, court, case),
        )


def _add_auditing(disputes: HanseGroup) -> None:
    @disputes.command_of(
        "join",
        short_help="Stake as an auditor who may be drawn for panels.",
        examples=(
            ("With two lots", "hanse disputes join 2 --key auditor"),
            ("Fill up after a fine", "hanse disputes join 0 --key auditor"),
        ),
    )
    @click.argument("lots", type=click.IntRange(0, 20), default=1)
    @_acts_as
    @pass_session
    async def join(session: Session, /, lots: int, key: str, keyring: bool) -> None:
        """Buy LOTS more, each as likely to be drawn as any other, and fill up what fines took."""
        from hanse.cli.panels.judging import join as send_join

        await send_join(session, lots, key, keyring)

    @disputes.command_of(
        "leave",
        short_help="Give lots back, or stop being drawn.",
        examples=(
            ("Stop being drawn", "hanse disputes leave --key auditor"),
            ("Take two lots' stake back", "hanse disputes leave 2 --key auditor"),
        ),
    )
    @click.argument("lots", type=click.IntRange(0, 20), default=0)
    @_acts_as
    @pass_session
    async def leave(session: Session, /, lots: int, key: str, keyring: bool) -> None:
        """Give LOTS back, which needs that no seat is open; with 0 be drawn no more.

        The stake becomes a credit: take it with `hanse disputes withdraw`.
        """
        await _send(
            session,
            None,
            key,
            keyring,
            lambda court, _: court.disputes.leave(lots) if lots else court.disputes.retire(),
        )

    @disputes.command_of(
        "withdraw",
        short_help="Take what challenges have credited.",
        examples=(("An auditor's fees", "hanse disputes withdraw --key auditor"),),
    )
    @_acts_as
    @pass_session
    async def withdraw(session: Session, /, key: str, keyring: bool) -> None:
        """Pay all that the key is credited with to its wallet, and say how much that was."""
        from hanse.cli.panels.judging import withdraw as take

        await take(session, key, keyring)


async def _send(
    session: Session,
    challenge: str | None,
    key: str,
    keyring: bool,
    build: "Callable[[Court, Any], Call]",
    pays: Callable[[Any], int] = lambda terms: 0,
) -> None:
    """Open the court, build the call, send it, and show the challenge as it stands then."""
    from hanse.cli.panels.judging import send_and_show
    from hanse.cli.panels.opening import open_court

    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        case = await court.get_case(challenge) if challenge is not None else None
        await send_and_show(session, court, case, build(court, case), pays(court.terms))
