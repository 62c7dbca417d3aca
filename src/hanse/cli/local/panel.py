"""The local network's auditors at work: each reruns the evidence, votes and reveals by itself.

    known = await close_leftovers(network, provider)      what an earlier start left open
    case = await judge(network, provider, known)

The steps that anyone may take (draw, tally, close) are the watcher's; the votes are the auditors',
by the commands that a person would type. Only the clock is helped: two blocks come a second
meanwhile (`hasten`), and the time to appeal is passed over.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hanse.auditor.panels.court import Case
from hanse.cli.auditing.places import get_evidence_folder
from hanse.cli.local.cast import AUDITORS, CHALLENGER, get_copy_path
from hanse.cli.local_network import LocalNetwork
from hanse.cli.panels.opening import open_court
from hanse.contracts.deployment import PanelTerms
from hanse.protocol.errors import HanseError, InvariantError
from hanse.protocol.ledger.panels.state import Stage
from hanse.protocol.signatures import Address, Hash32
from hanse.verification.evidence.files import get_evidence_hash

STEP_S = 120.0
"""For one step of a panel; each takes some seconds on a quiet machine."""

LOOK_S = 0.25

BLOCK_S = 0.5
"""Between blocks meanwhile. The recorder promises its roots by blocks, 28 of them here: at two a
second it has 14 s for each, enough on a machine that does something else besides."""


async def close_leftovers(network: LocalNetwork, accused: Address) -> frozenset[Hash32]:
    """Let the times of challenges pass that a start which was killed left open, and close them.

    Returns:
        The names of all challenges of this provider so far.
    """
    async with open_court(network.session) as court:
        events = [one for one in await court.list_challenges() if one.provider == accused]
        terms = court.terms
        cases = [await court.read_case(event) for event in events]
    for case in cases:
        while (stage := (await _read_case(network, case)).challenge.stage) != Stage.CLOSED:
            waits_s = {
                Stage.VOTING: terms.vote_time_s + terms.reveal_time_s,
                Stage.DECIDED: terms.appeal_time_s,
            }
            await network.node.advance_time(waits_s.get(stage, 0) + 1)
            await network.run_command("disputes", "close", case.name, "--key", CHALLENGER)
    return frozenset(case.name for case in cases)


async def judge(network: LocalNetwork, accused: Address, known: frozenset[Hash32]) -> Case:
    """Have the panel judge a provider's challenge that is not known; returns it closed.

    Raises:
        InvariantError: no challenge came, an auditor came to another verdict, or time ran out.
        HanseError: a step failed.
    """
    case = await wait_for(network, accused, lambda case: True, known)
    evidence = _find_evidence(network, case)
    looks = asyncio.gather(*(_look(network, evidence) for _ in AUDITORS))  # while it is drawn
    case = await wait_for(
        network, accused, lambda case: case.challenge.stage >= Stage.VOTING, known
    )
    verdicts = await looks
    names = {network.get_key(name).address: name for name in AUDITORS}
    seated = [names[address] for address in case.panel]
    await asyncio.gather(
        *(
            network.run_command("disputes", "vote", case.name, verdict, "--key", name)
            for name, verdict in zip(seated, verdicts, strict=True)
        )
    )
    await asyncio.gather(
        *(network.run_command("disputes", "reveal", case.name, "--key", name) for name in seated)
    )
    decided = await wait_for(
        network, accused, lambda case: case.challenge.stage >= Stage.DECIDED, known
    )
    terms = await _read_terms(network)
    if decided.challenge.stage == Stage.DECIDED:
        await network.node.advance_time(terms.appeal_time_s + 1)
    return await wait_for(
        network, accused, lambda case: case.challenge.stage == Stage.CLOSED, known
    )


async def wait_for(
    network: LocalNetwork,
    accused: Address,
    is_there: Callable[[Case], bool],
    known: frozenset[Hash32],
) -> Case:
    """The newest challenge of a provider that is not known, once it stands so.

    Raises:
        InvariantError: it does not come to that.
    """
    deadline_s, stage = time.monotonic() + STEP_S, "not brought"
    while time.monotonic() < deadline_s:
        case = await find_case(network, accused)
        if case is not None and case.name not in known:
            if is_there(case):
                return case
            stage = case.challenge.stage.name.lower()
        await asyncio.sleep(LOOK_S)
    raise InvariantError(
        "internal_error",
        f"the challenge of {accused} is {stage} after {STEP_S:g} s; see "
        f"{network.home / 'logs' / 'watcher.log'}",
    )


async def find_case(network: LocalNetwork, accused: Address) -> Case | None:
    """The newest challenge of a provider, if there is one."""
    async with open_court(network.session) as court:
        events = [one for one in await court.list_challenges() if one.provider == accused]
        return await court.read_case(events[-1]) if events else None


async def _read_case(network: LocalNetwork, case: Case) -> Case:
    async with open_court(network.session) as court:
        return await court.read_case(case.event)


def _find_evidence(network: LocalNetwork, case: Case) -> Path:
    """The file that the challenge names by its hash; here it is in the user's own folder."""
    for path in get_evidence_folder(network.session).glob("*.json"):
        if get_evidence_hash(path.read_bytes()) == case.event.evidence_hash:
            return path
    raise InvariantError("internal_error", f"nobody has the evidence {case.event.evidence_hash}")


async def _look(network: LocalNetwork, evidence: Path) -> str:
    """What one auditor comes to: it reruns the audit with the copy before it says anything."""
    replayed: dict[str, Any] = await network.run_command(
        *("audit", "replay", str(evidence), "--threads", "1"),
        *("--model", str(get_copy_path(network))),
    )
    is_cheat = replayed["replay"]["agrees"] and replayed["replay"]["verdict"] == "cheat"
    return "upheld" if is_cheat else "rejected"


async def _read_terms(network: LocalNetwork) -> PanelTerms:
    async with open_court(network.session) as court:
        return court.terms


@asynccontextmanager
async def hasten(network: LocalNetwork) -> AsyncIterator[None]:
    """Two blocks a second while this runs: only a local chain can be hurried."""

    async def mine() -> None:
        while True:
            with contextlib.suppress(HanseError):
                await network.node.mine()
            await asyncio.sleep(BLOCK_S)

    task = asyncio.create_task(mine())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
