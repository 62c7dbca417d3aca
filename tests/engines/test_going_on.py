"""A real model goes on from a delivered prefix, as the gateway asks it to after a failover."""

import json

import pytest

from hanse.engines import Engine, EngineRequest, Operation
from hanse.gateway.resilience.continuing import find_obstacle, make_rest
from hanse.gateway.resilience.delivered import Delivered

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

TOKENS = 24
CHAT = {
    "messages": [{"role": "user", "content": "Count from one to twenty in words."}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "stream": True,
}
PLAIN = {
    "prompt": "The days of the week are Monday, Tuesday,",
    "max_tokens": TOKENS,
    "temperature": 0,
    "stream": True,
}


async def read_frames(engine: Engine, operation: Operation, body: dict) -> list[bytes]:
    description = await engine.describe_model()
    request = EngineRequest(
        operation=operation, body={"model": description.model, **body}, answer_id="a"
    )
    data = b"".join([chunk.data async for chunk in engine.stream(request)])
    return [frame + b"\n\n" for frame in data.split(b"\n\n") if frame]


def get_delivered(frames: list[bytes]) -> Delivered:
    delivered = Delivered(held=list(frames))
    delivered.read()
    return delivered


@pytest.mark.parametrize("after", [1, 5, 12])
@pytest.mark.parametrize(
    ("operation", "body"), [(Operation.CHAT, CHAT), (Operation.COMPLETION, PLAIN)]
)
async def test_prefix_and_rest_are_the_answer_of_one_engine(llama_anew, operation, body, after):
    frames = await read_frames(llama_anew, operation, body)
    whole = get_delivered(frames)
    assert whole.tokens == TOKENS
    count = 0
    while get_delivered(frames[:count]).tokens < after:
        count += 1
    prefix = get_delivered(frames[:count])
    assert not find_obstacle(body, prefix)
    rest = json.loads(make_rest(body, prefix))
    assert rest["max_tokens"] == TOKENS - after
    gone_on = get_delivered(await read_frames(llama_anew, operation, rest))
    assert prefix.get(0).text + gone_on.get(0).text == whole.get(0).text


async def test_each_of_two_choices_goes_on_from_its_own_text(llama):
    """Slots that share a batch round otherwise, so only the next word is held to be the same."""
    body = {**CHAT, "n": 2, "seed": 11}
    frames = await read_frames(llama, Operation.CHAT, body)
    whole = get_delivered(frames)
    assert whole.tokens == 2 * TOKENS
    prefix = get_delivered(frames[: len(frames) // 2])
    assert not find_obstacle(body, prefix)
    for index in (0, 1):
        said = prefix.get(index)
        rest = json.loads(make_rest(body, prefix, index))
        assert 0 < said.frames < TOKENS
        assert (rest["seed"], rest["max_tokens"]) == (11 + index, TOKENS - said.frames)
        gone_on = get_delivered(await read_frames(llama, Operation.CHAT, rest))
        assert gone_on.tokens == rest["max_tokens"]
        assert whole.get(index).text.startswith(said.text + gone_on.get(0).text[:4])
