"""An agent framework that knows nothing of Hanse, by its base URL only: Pydantic AI's tool loop.

Its OpenAI chat, OpenAI responses and streaming ways are driven through a whole tool call each.
"""

import json
from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.gateway.dialect_parts import MODEL, ScriptedMarket, call, say
from tests.gateway.gateway_parts import MemoryAnswer, RunningGateway, run_gateway_here


class ToolMarket(ScriptedMarket):
    """Calls a tool first, and then says what the tool gave."""

    def _answer(self, path: str, request: dict[str, object]) -> MemoryAnswer:
        told = [m["content"] for m in self.chat["messages"] if m["role"] == "tool"]
        if told:
            self.deltas, self.finish_reason = say("It is ", told[-1], "."), "stop"
        else:
            self.deltas = call(0, "c1", "get_weather", '{"city":', '"Bremen"}')
            self.finish_reason = "tool_calls"
        return super()._answer(path, request)


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with run_gateway_here(ToolMarket()) as running:
        yield running


@pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_calls_its_tool_and_answers(gateway, kind, stream):
    provider = OpenAIProvider(base_url=gateway.base_url, api_key=gateway.key)
    agent = Agent(kind(MODEL, provider=provider), instructions="Use the tool.")
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        asked.append(city)
        return "raining"

    if stream:
        async with agent.run_stream("How is it in Bremen?") as result:
            output = await result.get_output()
    else:
        output = (await agent.run("How is it in Bremen?")).output
    assert asked == ["Bremen"]
    assert output == "It is raining."
    first, second = (json.loads(body) for _, body in gateway.market.bodies)
    assert first["tools"][0]["function"]["name"] == "get_weather"
    assert [message["role"] for message in second["messages"]][-2:] == ["assistant", "tool"]
