"""A provider that cheats, from the first answer bought of it to its slashed stake, told as it goes.

    await play_cheat(network, api_key, model, played, show)

The cheat is the product's own provider, made to cheat by this network; everything that catches it
is what would catch a stranger: the gateway keeps the answer, the watcher draws and audits it, the
gateway bars, the challenger bonds, the panel judges, Registry condemns. What is shown is read back
from the evidence and the chain; a step that does not come out right raises.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from hanse.auditor.files import read_evidence
from hanse.chain import Registry, Rpc
from hanse.cli.auditing.places import get_evidence_folder
from hanse.cli.local.cast import CHEAT, get_copy_path
from hanse.cli.local.every_unit import get_provider_name
from hanse.cli.local.panel import judge
from hanse.cli.local_network import LocalNetwork
from hanse.protocol.errors import HanseError, InvariantError
from hanse.protocol.signatures import Hash32
from hanse.verification.audits.judging import Verdict

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from rich.console import RenderableType

    from hanse.auditor.panels.court import Case
    from hanse.verification.evidence.files import Evidence

PROMPT = "In three sentences: what did Hanseatic merchants trade?"

ANSWER_TOKENS = 64

FOUND_S = 60.0
"""For the gateway to list the cheat's offer, and for the watcher to audit: seconds on a quiet
machine, and it loads a model."""

BARRED_S = 20.0
"""For the gateway to go elsewhere after the evidence: it looks once a second."""

LOOK_S = 0.2

ASK_AGAIN_S = 0.7
"""Between two questions to the gateway that are asked to see who answers."""

Show = Callable[["str | RenderableType"], None]


async def play_cheat(
    network: LocalNetwork,
    api_key: str,
    model: str,
    known: frozenset[Hash32],
    facts: dict[str, Any],
    show: Show,
) -> None:
    """Buy from the cheat, and follow what comes of it; fills `facts`.

    `known` are its challenges of before. A start that was killed goes on with the evidence it had:
    the gateway has barred the cheat and buys nothing of it any more.

    Raises:
        InvariantError: it was not caught, barred or slashed.
        HanseError: a step failed.
    """
    from openai import AsyncOpenAI

    cheat = network.get_key(CHEAT).address
    facts |= {"provider": cheat, "cheat": "quantise", "caught": False}
    show(
        f"\n[bold red]7. A cheat[/], started as one by this development network: {CHEAT} {cheat}\n"
        "   offers a copy of the same model at 8 bits, cheaper than all others, and serves 4 bits\n"
        "   (hanse provider start --cheat quantise; refused on every other chain)\n"
    )
    async with AsyncOpenAI(base_url=network.gateway_url, api_key=api_key, max_retries=0) as client:
        if (await _find_evidence(network))[0] is None:
            await _buy(network, client, model, facts, show)
        else:
            show(
                "\n   an answer was bought of it at an earlier start, which did not end its round\n"
            )
        path, evidence = await _wait_for_evidence(network)
        _show_evidence(network, path, evidence, facts, show)
        await _show_barred(network, client, model, facts, show)
    case = await judge(network, cheat, known)
    await _show_slashed(network, case, facts, show)


def show_out(network: LocalNetwork, facts: dict[str, Any], show: Show) -> None:
    """The rounds after: it stays out."""
    facts |= {"provider": network.get_key(CHEAT).address, "caught": True, "is_new": False}
    show(
        f"\n[bold]7. A cheat that is out[/]: {CHEAT} was caught, condemned and slashed before.\n"
        "   Registry lists nothing of it any more, for ever, so it is not started again;\n"
        "   rm -r .hanse and the next start shows it once more\n"
    )


async def _buy(
    network: LocalNetwork, client: "AsyncOpenAI", model: str, facts: dict[str, Any], show: Show
) -> None:
    """One answer of the cheat, which the gateway chooses by itself: it is the cheapest."""
    await _wait_until_listed(network, client, model)
    show(f"\n[bold]   Ask[/]   {PROMPT}\n")
    cheat = facts["provider"]
    text, match = await _ask_until(client, model, lambda match: f"provider={cheat}" in match)
    if not text:
        raise InvariantError(
            "internal_error",
            f"the gateway did not buy of {CHEAT} within {FOUND_S:g} s (last: {match}); see "
            f"{network.home / 'logs'}",
        )
    facts |= {"answer": text, "match": match}
    show(f"{escape(text)}\n")
    show(f"\n   the gateway bought it of {CHEAT}, the cheapest: {escape(match)}\n")


async def _wait_until_listed(network: LocalNetwork, client: "AsyncOpenAI", model: str) -> None:
    """Until the gateway has the cheat's offer beside those of the honest providers."""
    deadline_s, wanted = time.monotonic() + FOUND_S, f"{len(network.plans) + 1} providers"
    while time.monotonic() < deadline_s:
        if wanted in [one.owned_by async for one in client.models.list() if one.id == model]:
            return
        await asyncio.sleep(LOOK_S)
    raise InvariantError(
        "internal_error", f"the gateway does not list {CHEAT}; see {network.home / 'logs'}"
    )


async def _wait_for_evidence(network: LocalNetwork) -> "tuple[Path, Evidence]":
    deadline_s, doubt = time.monotonic() + FOUND_S, ""
    while time.monotonic() < deadline_s:
        found, doubt = await _find_evidence(network)
        if found is not None:
            return found
        await asyncio.sleep(LOOK_S)
    raise InvariantError(
        "internal_error",
        f"{CHEAT} was not caught within {FOUND_S:g} s{doubt}; see "
        f"{network.home / 'logs' / 'watcher.log'}",
    )


async def _find_evidence(network: LocalNetwork) -> "tuple[tuple[Path, Evidence] | None, str]":
    """The first evidence against the cheat; else what an audit that did not catch it said."""
    cheat, doubt = network.get_key(CHEAT).address, ""
    for path in sorted(get_evidence_folder(network.session).glob("*.json")):
        try:
            evidence, _ = await asyncio.to_thread(read_evidence, path)
        except HanseError:
            continue  # of another kind: an observation, or a broken promise
        judgement = evidence.statement.judgement
        if evidence.receipt.receipt.receipt.provider != cheat:
            continue
        if judgement.verdict is Verdict.CHEAT:
            return (path, evidence), ""
        doubt = f"; one audit was {judgement.verdict} ({', '.join(judgement.reasons)})"
    return None, doubt


def _show_evidence(
    network: LocalNetwork, path: Path, evidence: "Evidence", facts: dict[str, Any], show: Show
) -> None:
    statement = evidence.statement
    worst = max(statement.judgement.findings, key=lambda one: one.value_ppm / one.limit_ppm)
    facts |= {
        "evidence": str(path),
        "verdict": statement.judgement.verdict.value,
        "tokens": len(statement.measured.misses),
    }
    show(
        "\n[bold]8. Audit[/] by the user's own watcher, of one answer, with one prefill\n"
        f"   {worst.statistic}: its fingerprints are off by {worst.value_ppm / 1e6:.3f}, "
        f"an honest answer's by {worst.limit_ppm / 1e6:.3f} at most\n"
        f"   verdict {statement.judgement.verdict}, signed by {statement.auditor}\n"
        f"   rerun it: hanse audit replay {path} \\\n"
        f"     --model {get_copy_path(network)}\n"
    )


async def _show_barred(
    network: LocalNetwork, client: "AsyncOpenAI", model: str, facts: dict[str, Any], show: Show
) -> None:
    barred = f"barred-by-audit={facts['provider']}"
    began_s = time.monotonic()
    text, match = await _ask_until(
        client, model, lambda match: barred in match, tokens=8, within_s=BARRED_S
    )
    if not text:
        raise InvariantError(
            "internal_error", f"the gateway still asks {CHEAT} after its audit (last: {match})"
        )
    provider = match.split("provider=")[1].split(",")[0]
    facts |= {"barred": True, "barred_within_s": round(time.monotonic() - began_s, 1)}
    show(
        f"\n[bold]9. Barred[/]: the same question goes to {get_provider_name(network, provider)} "
        f"now\n   {escape(match)}\n"
    )


async def _show_slashed(
    network: LocalNetwork, case: "Case", facts: dict[str, Any], show: Show
) -> None:
    units, terms = network.network.units, case.round
    async with Rpc.connect(network.rpc_url) as rpc:
        registry = Registry(rpc, network.deployment.registry)
        block = (await rpc.fetch_head()).number
        found = await registry.read_provider(facts["provider"], block=block)
        (burned,) = await registry.contract.read("burned", block=block)
    if not found.is_condemned or found.stake or not burned:
        raise InvariantError(
            "internal_error",
            f"{CHEAT} was not slashed: the panel's verdict is {terms.verdict.name.lower()}, its "
            f"stake {units.format(found.stake)}",
        )
    facts |= {
        "caught": True,
        "is_new": True,
        "challenge": case.name,
        "burned": str(burned),
        "pool": str(found.pool),
    }
    show(
        "\n[bold]10. Challenge[/], bonded by the watcher, judged by three staked auditors\n"
        f"   {case.name}\n"
        "   drawn by lot, of which here all three are; each reran the evidence:\n"
        f"   {terms.upheld} of {terms.revealed} votes uphold it\n"
        f"   {CHEAT} is condemned, for ever: {units.format(burned)} of its stake are burned,\n"
        f"   {units.format(found.pool)} wait for further victims; the user has its fee back, the\n"
        "   challenger its bond, the panel's fees, and a bond for the trouble\n"
        "   (the time to appeal was passed over by this local chain's clock)\n"
    )


async def _ask_until(
    client: "AsyncOpenAI",
    model: str,
    is_there: Callable[[str], bool],
    *,
    tokens: int = ANSWER_TOKENS,
    within_s: float = FOUND_S,
) -> tuple[str, str]:
    """Ask until `hanse-match` says so: the answer's text, "" if it never did, and the last one."""
    from openai import APIError

    deadline_s, match = time.monotonic() + within_s, "none"
    while time.monotonic() < deadline_s:
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": PROMPT}],
                max_tokens=tokens,
                temperature=0.2,
                extra_headers={"hanse-explain": "1", "hanse-session": CHEAT},
            )
        except APIError as error:
            match = error.message
        else:
            match = raw.headers.get("hanse-match", "none")
            if is_there(match):
                return raw.parse().choices[0].message.content or " ", match
        await asyncio.sleep(ASK_AGAIN_S)
    return "", match
