"""The local network's auditors at work: each reruns the evidence, votes and reveals by itself.

    known = await close_leftovers(network, provider)      what an earlier start left open
    case = await judge(network, provider, evidence, known)

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

from hanse.cli.local.cast import AUDITORS, get_copy_path
from hanse.cli.local_network import LocalNetwork
from hanse.cli.panels.court import Case, Court, open_court
from hanse.protocol.errors import HanseError, InvariantError
from hanse.protocol.ledger.panels.state import Stage
from hanse.protocol.signatures import Address, Hash32

STEP_S = 120.0
"""For one step of a panel; each takes some seconds on a quiet machine."""

LOOK_S = 0.25

BLOCK_S = 0.5
"""Between blocks meanwhile. The recorder promises its roots by blocks, 28 of them here: at two a
second it has 14 s for each, enough on a machine that does something else besides."""


async def close_leftovers(network: LocalNetwork, accused: Address) -> frozenset[Hash32]:
    """Let the times of challenges pass that a start which was killed left open.

    Returns:
        The names of all challenges of this provider so far.
    """
    while (case := await find_case(network, accused)) is not None:
        if case.challenge.stage == Stage.CLOSED:
            break
        terms = await _read_terms(network)
        for name in ("vote_time_s", "reveal_time_s", "appeal_time_s", "answer_time_s"):
            await network.node.advance_time(getattr(terms, name) + 1)
        await wait_for(
            network, accused, lambda case: case.challenge.stage == Stage.CLOSED, frozenset()
        )
    async with open_court(network.session) as court:
        events = await court.list_challenges()
    return frozenset(one.challenge for one in events if one.provider == accused)


async def judge(
    network: LocalNetwork, accused: Address, evidence: Path, known: frozenset[Hash32]
) -> Case:
    """Have the panel judge a provider's challenge that is not known; returns it closed.

    Raises:
        InvariantError: no challenge came, an auditor came to another verdict, or time ran out.
        HanseError: a step failed.
    """
    looks = asyncio.gather(*(_look(network, evidence) for _ in AUDITORS))
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


async def _look(network: LocalNetwork, evidence: Path) -> str:
    """What one auditor comes to: it reruns the audit with the copy before it says anything."""
    replayed: dict[str, Any] = await network.run_command(
        *("audit", "replay", str(evidence), "--threads", "1"),
        *("--model", str(get_copy_path(network))),
    )
    is_cheat = replayed["replay"]["agrees"] and replayed["replay"]["verdict"] == "cheat"
    return "upheld" if is_cheat else "rejected"


async def _read_terms(network: LocalNetwork) -> Any:
    court: Court
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
