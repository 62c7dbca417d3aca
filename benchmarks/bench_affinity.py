"""What session affinity does for a prompt's cache: four characters, two providers, a real model.

    make -s bench-affinity TURNS=4

Each character (NPC) has a persona of some 500 tokens and talks for some turns; the characters take
turns. Two brokers sell the packaged SmolLM2 through llama.cpp at the same price. With affinity each
character's requests name its session, and stay where rendezvous hashing puts it; without, its turns
alternate between the providers, as a gateway that balances load and knows no sessions would have
it. Either way everything else is the paid path: vouchers, receipts, both books.

Each engine has three slots and no further cache (`prompt_cache_mib=0`), so that four characters are
to it what hundreds are to a large one: one more than it keeps warm, and yet room for the three that
hashing may send to one of two providers. One JSON line a mode. Tokens a second are the answer's,
after its first token.

Source: `docs/decisions/0023-matching.md`.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from hanse.chain import Key
from hanse.engines.llama_engine import LlamaEngine, Settings
from hanse.market import Needs
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Prices
from hanse.provider import Broker, OfferBook, Service, StaticChainView
from hanse.sdk import FixedChain, Hanse, HanseParts
from hanse.sdk.transport import TransportLimits
from hanse.sdk.transport.http import HttpTransport
from hanse.serving import HttpServer
from hanse.settlement import SubAccountFunds, open_receipt_book
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.store import open_sqlite
from tests.provider.offer_parts import put_on_offer

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
USER, SIGNER_KEY = "0x" + "a1" * 20, Key(b"\x01" * 32)
PROVIDERS = ("0x" + "c1" * 20, "0x" + "d1" * 20)
FUNDS = SubAccountFunds(10**15, 0)
PRICES = Prices(150_000, 50_000, 600_000)
NPCS = ("Ansgar the smith", "Brida the innkeeper", "Carsten the pilot", "Dorte the herbalist")
QUESTIONS = (
    "Good day! What do you do here?",
    "Have you heard anything of the missing ship?",
    "What would you sell me for ten silver coins?",
    "Whom in this town do you trust least?",
    "How do I get to the lighthouse by night?",
    "What did your mother tell you about the sea?",
)
ANSWER_TOKENS = 32
PERSONA_WORDS = 320


def make_persona(name: str) -> str:
    """A long description, the same in every run; of made-up facts, since only its length counts."""
    chance = random.Random(name)
    things = ("ropes", "salt", "herring", "candles", "wool", "tar", "amber", "bread", "iron", "ale")
    places = ("the harbour", "the market", "the old gate", "the mill", "the chapel", "the dunes")
    moods = ("fond of", "afraid of", "proud of", "tired of", "famous for", "silent about")
    text = [f"You are {name} in a Hanseatic town. Stay in your role and answer in two sentences."]
    while sum(len(part.split()) for part in text) < PERSONA_WORDS:
        text.append(
            f"You are {chance.choice(moods)} the {chance.choice(things)} that came to "
            f"{chance.choice(places)} in the year {chance.randint(1240, 1390)}."
        )
    return " ".join(text)


@contextlib.asynccontextmanager
async def sell(provider: str, number: int, cache_dir: Path, folder: Path) -> Any:
    """One provider over its own llama.cpp."""
    receipt_key = Key(bytes([number + 2]) * 32)
    engine = LlamaEngine(
        Settings(
            cache_dir=str(cache_dir),
            parallel=3,
            context_tokens=2_048,
            prompt_cache_mib=0,
            embeddings=False,
        )
    )
    async with contextlib.AsyncExitStack() as stack:
        database = await open_sqlite(folder / f"{number}.sqlite")
        stack.push_async_callback(database.close)
        stack.push_async_callback(engine.close)
        await engine.start()
        server = HttpServer.bind("127.0.0.1", 0)
        stack.push_async_callback(server.stop)
        service, offers = Service(1, engine, PRICES), OfferBook(time.time)
        published = await put_on_offer(
            offers,
            service,
            provider=provider,
            url=server.url,
            domain=DOMAIN,
            receipt_key=receipt_key,
        )
        view = StaticChainView()
        view.set_funds(USER, SIGNER_KEY.address, FUNDS)
        book = await open_receipt_book(database, provider, DOMAIN, receipt_key)
        broker = Broker(provider=provider, domain=DOMAIN, book=book, chain_view=view, offers=offers)
        await server.start(broker)
        broker.admitting = True
        yield published


class Talk:
    """One character's conversation."""

    def __init__(self, number: int, model: str) -> None:
        self.number = number
        self._model = model
        self._messages = [{"role": "system", "content": make_persona(NPCS[number])}]

    async def take_turn(self, hanse: Hanse, turn: int, needs: Needs) -> dict[str, Any]:
        """Ask, read the answer to its end, and keep it."""
        question = QUESTIONS[turn % len(QUESTIONS)]
        self._messages.append({"role": "user", "content": question})
        body = {
            "model": self._model,
            "messages": self._messages,
            "max_tokens": ANSWER_TOKENS,
            "stream": True,
            "seed": 1,
            "logit_bias": {"2": -100},  # never the end of the answer, so that lengths are equal
        }
        begun = time.perf_counter()
        first_s, text = 0.0, ""
        answer = await hanse.request("/v1/chat/completions", msgspec.json.encode(body), needs)
        async for frame in answer.frames():
            first_s = first_s or time.perf_counter() - begun
            if frame.startswith(b"data: {"):
                for choice in msgspec.json.decode(frame[6:]).get("choices", ()):
                    text += choice["delta"].get("content") or ""
        total_s = time.perf_counter() - begun
        self._messages.append({"role": "assistant", "content": text})
        assert answer.receipt is not None  # the stream has ended
        usage = answer.receipt.signed.receipt.usage
        return {
            "provider": answer.provider,
            "turn": turn,
            "first_s": first_s,
            "tokens_per_s": (usage.output_tokens - 1) / max(1e-9, total_s - first_s),
            "input": usage.input_tokens,
            "cached": usage.cached_tokens,
            "fee": answer.receipt.fee,
        }


async def measure(is_affine: bool, turns: int, cache_dir: Path) -> dict[str, Any]:
    """All characters' turns in one mode, over providers that start cold."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = [
            await stack.enter_async_context(sell(provider, number, cache_dir, folder))
            for number, provider in enumerate(PROVIDERS)
        ]
        database = await open_sqlite(folder / "user.sqlite")
        stack.push_async_callback(database.close)
        transport = HttpTransport(TransportLimits(), reaches_private=True)
        stack.push_async_callback(transport.close)
        parts = HanseParts(
            domain=DOMAIN,
            user=USER,
            signer=SIGNER_KEY,
            book=await open_voucher_book(database, DOMAIN),
            chain=FixedChain(services, dict.fromkeys(PROVIDERS, FUNDS)),
            transport=transport,
        )
        hanse = await stack.enter_async_context(Hanse.join(parts))
        await hanse.fetch_heartbeats()
        model = hanse.get_models()["data"][0]["id"]
        talks = [Talk(number, model) for number in range(len(NPCS))]
        found = []
        for turn in range(turns):
            for talk in talks:
                provider = PROVIDERS[(turn + talk.number) % 2]
                needs = (
                    Needs(session=NPCS[talk.number])
                    if is_affine
                    else Needs(providers=frozenset({provider}))
                )
                found.append(await talk.take_turn(hanse, turn, needs))
    return summarise(is_affine, turns, found)


def summarise(is_affine: bool, turns: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """One mode in figures; the first turn is cold either way and told apart."""
    warm = [one for one in found if one["turn"] > 0]
    read = sum(one["input"] + one["cached"] for one in warm)
    return {
        "affinity": is_affine,
        "npcs": len(NPCS),
        "turns": turns,
        "requests_of_provider": [Counter(one["provider"] for one in found)[p] for p in PROVIDERS],
        "first_token_ms_cold": round(
            1_000 * statistics.median(one["first_s"] for one in found if one["turn"] == 0)
        ),
        "first_token_ms_p50": round(1_000 * statistics.median(one["first_s"] for one in warm)),
        "first_token_ms_max": round(1_000 * max(one["first_s"] for one in warm)),
        "tokens_per_s_p50": round(statistics.median(one["tokens_per_s"] for one in warm), 1),
        "cached_percent": round(100 * sum(one["cached"] for one in warm) / read, 1),
        "fee": sum(one["fee"] for one in found),
    }


def main() -> None:
    """Measure both modes and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/models"))
    options = parser.parse_args()
    for is_affine in (False, True):
        document = asyncio.run(measure(is_affine, options.turns, options.cache_dir))
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
