"""How long one choice takes among many offers, all of one model. Prints one JSON line.

    make -s bench-match OFFERS=100000 KNOWN=1000 ATTESTED=1000

Every provider has a sub-account; `KNOWN` of them were measured and send heartbeats (a gateway buys
from some hundreds at most), the others have prices only. `ATTESTED` machines of class `tee` were
verified, those of measured providers first; the other offers of the class, a quarter of all, cannot
be chosen. Prices, speeds, failures, regions, checks
and loads are drawn at random, independent of one another, which is the worst case for a search that
prunes. Each decision has a size, a policy and, one in four, limits of its own; one in four belongs
to a session. Time is this thread's own processor time, the least of three tries of each decision:
what a busy neighbour adds to a shared core is not the decision's.

Source: `docs/decisions/0023-matching.md`.
"""

import argparse
import contextlib
import gc
import json
import random
import time

from hanse.market import (
    BALANCED,
    CHEAPEST,
    FASTEST,
    Board,
    Chooser,
    HealthBook,
    ListedOffer,
    MeasuredBook,
    Needs,
    OfferIndex,
    PresenceBook,
    RequestShape,
    read_policy,
)
from hanse.market.attested.book import TEE
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Heartbeat, Offer, Prices, SignedOffer
from hanse.protocol.signatures import ZERO_HASH
from hanse.protocol.wire import VERIFIABILITIES

NOW = 1_900_000_000.0
DECISIONS = 4_000
TRIES = 3
POLICIES = (CHEAPEST, FASTEST, BALANCED, read_policy("price=1,speed=1,reliability=1,locality=1"))


def make_offer(chance: random.Random, number: int) -> ListedOffer:
    """An offer of a market whose usual price is a million base units a million tokens."""
    output = max(1, int(1e6 * chance.lognormvariate(0, 0.7)))
    prices = Prices(max(1, int(output * chance.uniform(0.15, 0.5))), 0, output)
    offer = Offer(
        f"0x{number:040x}",
        1,
        "chat",
        "a-model",
        ZERO_HASH,
        chance.choice(("Q4_0", "Q8_0", "F16")),
        "llama",
        chance.choice((4_096, 32_768)),
        4_096,
        prices,
        chance.choice(VERIFIABILITIES),
        ("http://broker",),
        ZERO_HASH,
        int(NOW) + 86_400,
        1,
        chance.choice(("", "eu", "eu-north", "us-east", "us-west", "ap")),
    )
    return ListedOffer(SignedOffer(offer, ""), "0x", "0x")


def make_known(chance: random.Random, providers: list[str], chooser: Chooser) -> None:
    """Measurements, failures and heartbeats of these providers."""
    board = chooser.board
    for provider in providers:
        first_s, token_s = chance.lognormvariate(-1, 0.6), chance.lognormvariate(-3.5, 0.6)
        for _ in range(3):
            board.measured.report_stream((provider, 1), first_s, first_s + 100 * token_s, 101)
        board.health.report_success(provider, first_s)
        free = chance.randint(0, 8)
        beat = Heartbeat(provider, 1, 1, 8, free, 0 if free else chance.randint(0, 8), 8, True)
        board.presence.take([beat])


def rate(chance: random.Random, providers: list[str], board: Board) -> None:
    """Give everybody a reputation: most registered lately or never failed, some did."""
    for provider in providers:
        board.health.take_reputation(provider, draw_risk_ppm(chance))


def attest(offers: list[ListedOffer], known: set[str], most: int, board: Board) -> int:
    """Verify so many machines of class `tee`, of known providers first; how many there were."""
    machines = [listed for listed in offers if listed.offer.verifiability == TEE]
    machines.sort(key=lambda listed: listed.provider not in known)
    for listed in machines[:most]:
        board.attested.verify_until(listed.provider, listed.receipt_key, "image", NOW + 3_600)
    return len(machines[:most])


def draw_risk_ppm(chance: random.Random) -> int:
    """What `compute_reputation` says of one of many: few failed an audit, the others are praised
    by a different number of auditors."""
    if chance.random() < 0.03:
        return chance.randint(100_000, 700_000)
    return chance.randint(2_000, 100_000)


def make_request(chance: random.Random, number: int) -> tuple[RequestShape, Needs]:
    """One request of a mixed day."""
    affinity = b"session %d" % chance.randrange(1_000) if number % 4 == 0 else b""
    shape = RequestShape(
        "chat",
        "a-model",
        chance.choice((200, 1_200, 8_000, 32_000)),
        chance.choice((None, 16, 64, 256)),
        1,
        affinity,
        bool(affinity),
    )
    limits = number % 4 == 1
    needs = Needs(
        policy=POLICIES[number // 4 % len(POLICIES)],
        verifiability_min="sampled" if limits else "reputation",
        region=chance.choice(("eu", "us")) if limits else "",
        quantisation="F16" if limits and chance.random() < 0.5 else "",
        max_prices=Prices(10**6, 10**6, 10**6) if limits else None,
    )
    return shape, needs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offers", type=int, default=100_000)
    parser.add_argument("--known", type=int, default=1_000)
    parser.add_argument("--rated", type=int, default=0)
    parser.add_argument("--attested", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    offers = [make_offer(chance, number) for number in range(options.offers)]
    providers = [listed.provider for listed in offers]
    index = OfferIndex()

    def clock() -> float:
        return NOW

    health = HealthBook(clock)
    board = Board(index, health, MeasuredBook(), PresenceBook(clock), clock, "eu")
    funds = dict.fromkeys(providers, 10**18)
    chooser = Chooser(board, funds.get, funds.keys, chance.random, trial_share=0.02)
    board.keep_funded(frozenset(providers))
    rate(random.Random(options.seed), providers[: options.rated], board)
    index.replace_all(offers)
    known = chance.sample(providers, min(options.known, len(providers)))
    make_known(chance, known, chooser)
    attested = attest(offers, set(known), options.attested, board)
    requests = [make_request(chance, number) for number in range(DECISIONS)]
    gc.collect()
    gc.freeze()  # a gateway's market is old; collecting it is not part of a decision
    times = []
    for shape, needs in requests:
        tries = []
        with contextlib.suppress(HanseError):  # of few offers none may be within its limits
            for _ in range(TRIES):
                begun = time.thread_time_ns()
                chooser.choose(shape, needs, NOW)
                tries.append(time.thread_time_ns() - begun)
            times.append(min(tries) / 1_000)
    times.sort()
    document = {
        "offers": options.offers,
        "known": len(known),
        "attested": attested,
        "decisions": len(times),
        "decision_us_p50": round(times[len(times) // 2], 1),
        "decision_us_p99": round(times[len(times) * 99 // 100], 1),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
