"""Several choices of a stream that broke, each gone on with by a request of its own."""

import asyncio
import json
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hanse.gateway.resilience.continuing import find_obstacle, make_rest
from hanse.gateway.resilience.continuing.several import Several
from hanse.protocol.errors import TransientError
from hanse.protocol.hashing import DONE_FRAME
from tests.gateway.gateway_parts import MemoryAnswer, MemoryMarket, MemoryReceipt, to_frame
from tests.gateway.resilience.test_continuing import CHAT, PLAIN, deliver
from tests.gateway.resilience.test_staying import open_front

CHAT_PATH, PLAIN_PATH = "/v1/chat/completions", "/v1/completions"
HEAD = {"id": "first", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def to_chunk(index: int, text: str = "", reason: str | None = None, **delta: object) -> bytes:
    said = {"content": text, **delta} if text else delta
    return to_frame({**HEAD, "choices": [{"index": index, "delta": said, "finish_reason": reason}]})


def to_text(index: int, text: str) -> bytes:
    return to_frame({**HEAD, "choices": [{"index": index, "text": text, "finish_reason": None}]})


BROKEN = [
    to_chunk(0, "a0", role="assistant"),
    to_chunk(1, "b0", role="assistant"),
    to_chunk(0, " a1"),
    to_chunk(1, reason="stop"),
]
"""Choice 1 has come to its end, choice 0 not, and nothing came of choice 2."""


class Breaks(MemoryMarket):
    """The first provider breaks off after these frames; the others give what is left.

    Attributes:
        asked_for: each request's needs.
        spoil: changes the answer to the request with this number, from 1.
    """

    def __init__(self, frames=BROKEN, spoil=None) -> None:
        super().__init__()
        self.asked_for = []
        self._broken_frames = list(frames)
        self._spoil = spoil or {}

    async def request(self, path, body, needs=None, asked=None):
        answer = await super().request(path, body, needs, asked)
        self.asked_for.append(needs)
        number, request = len(self.answers), json.loads(body)
        answer.provider = "0x" + f"{number:02d}" * 20
        if number == 1:
            answer._frames = self._broken_frames
            answer._broken = TransientError("provider_unreachable", "it broke off")
        else:
            answer._frames = self.make_rest(path, request, number)
        self._spoil.get(number, lambda _: None)(answer)
        return answer

    def make_rest(self, path, request, number):
        key = "text" if path == PLAIN_PATH else "delta"
        frames = []
        for word in range(request["max_tokens"]):
            said = f" {number}w{word}"
            content = said if key == "text" else {"role": "assistant", "content": said}
            choice = {"index": 0, key: content, "finish_reason": None}
            frames.append(to_frame({**HEAD, "id": f"of {number}", "choices": [choice]}))
        end = {"index": 0, key: "" if key == "text" else {}, "finish_reason": "length"}
        frames.append(to_frame({**HEAD, "choices": [end]}))
        if (request.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 10 * number, "completion_tokens": request["max_tokens"]}
            frames.append(to_frame({**HEAD, "choices": [], "usage": usage}))
        return [*frames, DONE_FRAME]


def read(body: bytes) -> tuple[dict[int, str], list[dict], list[dict]]:
    """The text of each choice, all chunks, and what the comments say of who went on."""
    frames = [frame for frame in body.decode().split("\n\n") if frame]
    chunks = [json.loads(f[6:]) for f in frames if f.startswith("data: {")]
    comments = [json.loads(f.split(" ", 2)[2]) for f in frames if f.startswith(": hanse-cont")]
    texts: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            said = choice.get("text") or choice.get("delta", {}).get("content") or ""
            texts[choice["index"]] += said
    return dict(texts), chunks, comments


async def test_each_choice_that_is_open_goes_on_from_its_own_text():
    async with open_front(Breaks()) as front:
        answer = await front.ask(
            stream=True, n=3, seed=7, max_tokens=4, stream_options={"include_usage": True}
        )
        market = front.market
        texts, chunks, comments = read(answer.body)
        first, second = (json.loads(body) for _, body in market.bodies[1:])
        assert "n" not in first | second
        assert (first["seed"], first["max_tokens"]) == (7, 2)
        assert first["messages"][-1] == {"role": "assistant", "content": "a0 a1"}
        assert (second["seed"], second["max_tokens"], second["messages"][-1]["role"]) == (
            *(9, 4),
            "user",
        )
        assert texts == {0: "a0 a1 2w0 2w1", 1: "b0", 2: " 3w0 3w1 3w2 3w3"}
        assert {chunk["id"] for chunk in chunks} == {"first"}
        ends = [(c["index"], c["finish_reason"]) for x in chunks for c in x["choices"]]
        assert sorted(e for e in ends if e[1]) == [(0, "length"), (1, "stop"), (2, "length")]
        roles = [c["index"] for x in chunks for c in x["choices"] if "role" in c["delta"]]
        assert sorted(set(roles)) == [0, 1, 2]
        assert (roles.count(0), roles.count(1)) == (1, 1)
        # 20 - 2 of the prompt that the first part never told, and what the others told
        assert [x["usage"] for x in chunks if x.get("usage")] == [
            {"prompt_tokens": 18 + 20 + 30, "completion_tokens": 3 + 6, "total_tokens": 77}
        ]
        assert sorted((c["index"], c["tokens"]) for c in comments) == [(0, 2), (2, 0)]
        assert answer.body.count(b"[DONE]") == 1
        assert answer.body.endswith(b"data: [DONE]\n\n")
        excluded = {market.answers[0].provider}
        assert [needs.excluded for needs in market.asked_for[1:]] == [excluded, excluded]
        assert front.count("hanse_gateway_turns", "continued") == 2
        assert b"_fees_base_units_total 2468.0" in front.app.metrics.to_text()  # of two parts


async def test_plain_completions_go_on_too_and_no_usage_is_told_that_was_not_asked_for():
    market = Breaks([to_text(0, "a0"), to_text(1, "b0")])
    async with open_front(market) as front:
        answer = await front.ask(
            PLAIN_PATH, prompt="hello ", messages=None, stream=True, n=2, max_tokens=2
        )
        texts, chunks, _ = read(answer.body)
        assert texts == {0: "a0 2w0", 1: "b0 3w0"}
        assert not [chunk for chunk in chunks if chunk.get("usage")]
        prompts = [json.loads(body)["prompt"] for _, body in market.bodies[1:]]
        assert prompts == ["hello a0", "hello b0"]


async def test_choices_that_have_every_token_end_without_a_request():
    async with open_front(Breaks()) as front:
        answer = await front.ask(stream=True, n=2, max_tokens=2)
        texts, chunks, _ = read(answer.body)
        assert texts == {0: "a0 a1", 1: "b0"}
        assert chunks[-1]["choices"] == [{"index": 0, "finish_reason": "length", "delta": {}}]
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert len(front.market.bodies) == 1


TOOL = to_chunk(0, tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}])


@pytest.mark.parametrize(
    ("frames", "fields"),
    [
        ([*BROKEN, TOOL], {}),
        ([*BROKEN, to_chunk(3, "x")], {}),
        (BROKEN, {"logprobs": True}),
        (BROKEN[:1] + BROKEN[3:] + [to_chunk(i, reason="stop") for i in (0, 2)], {}),
    ],
    ids=["a tool call is under way", "a choice too many", "log probabilities", "all have ended"],
)
async def test_what_cannot_go_on_ends_with_the_error(frames, fields):
    async with open_front(Breaks(frames)) as front:
        answer = await front.ask(stream=True, n=3, max_tokens=4, **fields)
        assert b'"provider_unreachable"' in answer.body
        assert b"data: [DONE]" not in answer.body
        assert len(front.market.bodies) == 1


def test_a_call_that_is_whole_keeps_nobody_from_going_on():
    delivered = deliver(*BROKEN[1:3], TOOL, to_chunk(0, reason="tool_calls"), to_chunk(1, "more"))
    delivered.choices[1].finish_reason = ""
    assert not find_obstacle({**CHAT, "n": 2}, delivered)


def test_a_long_prompt_is_not_read_once_for_each_choice():
    """Whoever breaks off on purpose could make others earn it many times over."""
    long = {**CHAT, "messages": [{"role": "user", "content": "x" * 50_000}]}
    assert "bytes of prompts" in find_obstacle({**long, "n": 4}, deliver(*BROKEN))
    assert not find_obstacle({**long, "n": 3}, deliver(*BROKEN))  # two of them go on
    assert not find_obstacle({**long, "n": 2}, deliver(*BROKEN))


def test_a_request_for_one_choice_has_its_seed_and_nothing_of_the_others():
    delivered = deliver(*BROKEN)
    rest = json.loads(make_rest({**PLAIN, "n": 3, "best_of": 3, "seed": 5}, delivered, 2))
    assert rest == {**PLAIN, "seed": 7}


class Breaks2(Breaks):
    """Of whoever goes on, one breaks off again."""

    def make_rest(self, path, request, number):
        frames = super().make_rest(path, request, number)
        return frames[:1] if number == 2 else frames


async def test_a_choice_whose_second_provider_breaks_off_goes_on_at_a_third():
    async with open_front(Breaks2()) as front:
        answer = await front.ask(stream=True, n=2, max_tokens=4)
        texts, _, comments = read(answer.body)
        assert texts == {0: "a0 a1 2w0 3w0", 1: "b0"}
        assert [(c["index"], c["tokens"]) for c in comments] == [(0, 2), (0, 3)]
        assert answer.body.count(b"[DONE]") == 1
        assert len(front.market.asked_for[2].excluded) == 2


@pytest.mark.parametrize("turns_max", [0, 1])
async def test_turns_are_counted_through_all_parts(turns_max):
    async with open_front(Breaks2(), turns_max=turns_max) as front:
        answer = await front.ask(stream=True, n=3, max_tokens=4)
        assert b'"provider_unreachable"' in answer.body
        assert b"data: [DONE]" not in answer.body
        assert len(front.market.bodies) == 1 + 2 * turns_max
        assert not front.market.open_answers
        assert front.count("hanse_gateway_turns", "lost") == 1


def hang(answer: MemoryAnswer) -> None:
    answer._gate = asyncio.Event()


async def test_a_deadline_hangs_up_on_all_that_go_on():
    async with open_front(Breaks(spoil={2: hang, 3: hang})) as front:
        answer = await front.ask(
            stream=True, n=3, max_tokens=4, headers={"hanse-deadline-ms": "50"}
        )
        assert b'"request_timeout"' in answer.body
        assert not front.market.open_answers
        assert len(front.market.answers) == 3


class Short(Breaks):
    """Nobody is left for the third request."""

    async def request(self, path, body, needs=None, asked=None):
        if len(self.answers) == 2:
            raise TransientError("no_provider", "all were tried")
        return await super().request(path, body, needs, asked)


async def test_where_one_choice_finds_nobody_all_end_and_the_others_are_hung_up_on():
    async with open_front(Short(spoil={2: hang}), market_wait_s=0) as front:
        answer = await front.ask(stream=True, n=3, max_tokens=4)
        assert b'"provider_unreachable"' in answer.body
        assert b"data: [DONE]" not in answer.body
        assert not front.market.open_answers


async def test_each_choice_goes_on_at_the_local_engine():
    local = Breaks()
    local.answers.append(None)  # what goes on there breaks nowhere
    async with open_front(Short(BROKEN), local=local, market_wait_s=0) as front:
        answer = await front.ask(stream=True, n=3, max_tokens=4)
        texts, _, comments = read(answer.body)
        assert texts[1] == "b0"
        assert {c["provider"] for c in comments} == {"local", front.market.answers[1].provider}
        assert answer.body.count(b"[DONE]") == 1


def cost(fee: int):
    """The part says what it cost, or has a voucher of so much."""

    def spoil(answer: MemoryAnswer) -> None:
        answer.voucher = SimpleNamespace(request=SimpleNamespace(maximum_fee=fee))

    return spoil


@pytest.mark.parametrize(("choices", "left"), [(1, 300), (3, 150)])
async def test_what_a_part_may_have_cost_is_taken_from_the_most_that_the_request_may(choices, left):
    """Its receipt is not here, so it counts with its voucher's maximum, as budgets hold it."""
    frames = [frame for frame in BROKEN if choices > 1 or b'"index": 0' in frame]
    async with open_front(Breaks(frames, spoil={1: cost(700)})) as front:
        answer = await front.ask(
            stream=True, n=choices, max_tokens=4, headers={"hanse-max-fee": "1000"}
        )
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert {needs.max_fee for needs in front.market.asked_for[1:]} == {left}


async def test_a_stream_whose_part_took_all_that_it_may_cost_is_not_gone_on_with():
    async with open_front(Breaks(spoil={1: cost(1_001)})) as front:
        answer = await front.ask(stream=True, n=3, max_tokens=4, headers={"hanse-max-fee": "1000"})
        assert b'"provider_unreachable"' in answer.body
        assert len(front.market.bodies) == 1


async def test_a_receipt_says_what_a_part_cost_and_how_many_tokens_it_had():
    def give_receipt(answer: MemoryAnswer) -> None:
        cost(5_000)(answer)
        receipt = MemoryReceipt()
        answer.receipt = replace(receipt, fee=400)

    async with open_front(Breaks(spoil={1: give_receipt})) as front:
        answer = await front.ask(
            stream=True,
            n=3,
            max_tokens=4,
            stream_options={"include_usage": True},
            headers={"hanse-max-fee": "1000"},
        )
        assert {needs.max_fee for needs in front.market.asked_for[1:]} == {300}
        [usage] = [x["usage"] for x in read(answer.body)[1] if x.get("usage")]
        assert usage["prompt_tokens"] == 5 + 20 + 30  # the receipt's, not an estimate
        told = b"_fees_base_units_total %.1f" % (400 + 2 * 1234)
        assert told in front.app.metrics.to_text()


class SlowRest:
    """What a choice goes on with, hung up on slowly."""

    def __init__(self, closed: list[str], provider: str) -> None:
        self.provider, self.earlier, self.receipt = provider, [], None
        self._closed, self.may_close = closed, asyncio.Event()

    async def read_batch(self) -> list[bytes]:
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        await self.may_close.wait()
        self._closed.append(self.provider)


async def test_whoever_hangs_up_may_be_cancelled_twice_and_all_choices_are_hung_up_on():
    closed, rests, all_asked = [], [], asyncio.Event()

    async def ask(body, parts):
        rests.append(SlowRest(closed, f"provider {len(rests)}"))
        if len(rests) == 2:
            all_asked.set()
        return rests[-1]

    request = {**CHAT, "n": 2, "stream": True}
    several = Several(request, deliver(to_chunk(0, "a"), to_chunk(1, "b")), [None], ask, "broken")
    await all_asked.wait()
    leaving = [asyncio.create_task(several.close()) for _ in "12"]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert closed == []
    for rest in rests:
        rest.may_close.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(closed) == ["provider 0", "provider 1"]
