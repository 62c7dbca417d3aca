"""Who takes part in the local network besides its two honest providers: a cheat, and its judges.

All of them are keys of the local home. In the open market they are different people: a provider
cheats by itself, auditors stake since seats pay, a challenger bonds since a true challenge pays.
Here one network plays them all, with the same commands.
"""

from pathlib import Path

from hanse.chain import Registry, Rpc
from hanse.cli.local_network import LocalNetwork, ProviderPlan

CHEAT = "visby"
"""Offers 8 bits, serves 4. DEVELOPMENT ONLY: it is started with `--cheat quantise`."""

PRICES = ("0.10", "0.40")
"""Of a million tokens in and out: two thirds of the cheapest honest provider's."""

AUDITORS = ("auditor-1", "auditor-2", "auditor-3")
"""A panel of the local chain has three seats, so all of them sit."""

CHALLENGER = "challenger"
"""Bonds what the user's watcher finds; a purse of its own, so that bonds and fees can be seen."""

PURSE = 50_000_000
"""What the challenger is given once: two bonds of the local chain with their fees."""

BOND_MAX = "30"
"""What the watcher may have bonded at once, in whole units: one challenge."""

CALIBRATION = Path(__file__).with_name("smollm2-calibration.json")
"""Thresholds for copies of the packaged model between engine llama and cyllama, from honest answers
of `make bench-audit QUICK=0`; docs/measurements.md, "The round with a cheat", says which."""


def get_copy_path(network: LocalNetwork) -> Path:
    """The copy that the cheat promises to serve; its auditors have the same file."""
    return network.home / "audits" / "copies" / f"{CHEAT}.gguf"


def make_plan(network: LocalNetwork, model: str) -> ProviderPlan:
    """How the cheat is started."""
    settings = {
        "model_path": str(get_copy_path(network)),
        "parallel": "1",
        "context_tokens": "1024",
    }
    options = ("--cheat", "quantise")
    return ProviderPlan(CHEAT, *PRICES, model=model, engine_settings=settings, options=options)


async def is_condemned(network: LocalNetwork) -> bool:
    """Whether the cheat was slashed before: then it is out for ever."""
    if not network.session.get_key_path(CHEAT).is_file():
        return False
    async with Rpc.connect(network.rpc_url) as rpc:
        registry = Registry(rpc, network.deployment.registry)
        block = (await rpc.fetch_head()).number
        owner = network.get_key(CHEAT).address
        return (await registry.read_provider(owner, block=block)).is_condemned
