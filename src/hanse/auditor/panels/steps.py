"""The steps that anyone may take with a challenge, and the vote that a key sealed."""

from pathlib import Path

from hanse.auditor.panels.court import Case, Court, find_next_step
from hanse.auditor.panels.sealed import Sealed, find_sealed, get_path
from hanse.chain import Call
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.protocol.ledger.panels.state import Stage


def build_next(home: Path, court: Court, case: Case) -> Call:
    """The call that takes a challenge on.

    Raises:
        RequestError: `unprocessable` if nothing can be done yet, or any more.
    """
    step = find_next_step(case, court.now_s, court.block, court.terms)
    answer = find_sealed(get_path(home, case.name, case.challenge.challenger, "answer"))
    if step in ("open", "close") and answer is not None:
        return court.disputes.open_answer(case.name, Verdict(answer.verdict), answer.salt)
    calls = {"draw": court.disputes.draw, "tally": court.disputes.tally}
    if step in calls:
        return calls[step](case.name)
    undecided = step == "open" and case.round.verdict == Verdict.NONE
    if step == "close" or undecided:
        return court.disputes.close(case.name)
    if case.challenge.stage == Stage.CLOSED:
        raise RequestError("unprocessable", "the challenge is closed")
    whose = "the challenger has to open its answer" if step == "open" else "its time has not come"
    raise RequestError(
        "unprocessable", f"the challenge is {case.challenge.stage.name.lower()}; {whose}"
    )


def get_vote(home: Path, court: Court, case: Case) -> tuple[Sealed, Verdict]:
    """The vote that this key sealed in the present round.

    Raises:
        RequestError: `not_found` if this home has none.
    """
    sealed = find_sealed(get_vote_path(home, court, case))
    if sealed is None:
        raise RequestError(
            "not_found", f"this home has no vote of {court.address} on {case.name} kept"
        )
    return sealed, Verdict(sealed.verdict)


def get_vote_path(home: Path, court: Court, case: Case) -> Path:
    """Where the vote of the key that acts is kept, of the present round."""
    what = f"vote-{case.challenge.round}"
    return get_path(home, case.name, court.address, what)
