"""The check's short ways take what its long ones take: of plain messages, and what was checked."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.engines import Capabilities, EngineRequest, Operation
from hanse.engines.parameters import check_request
from hanse.protocol.errors import RequestError

CAPABILITIES = Capabilities(
    operations=frozenset({Operation.CHAT}), context_tokens=100, output_tokens_max=100, parallel=1
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "User", "", "root"])
ODD = st.none() | st.booleans() | st.integers() | st.lists(st.text(), max_size=2)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image"]), "text": ODD | st.text()}),
    max_size=2,
)
CALLS = st.just([{"function": {"name": "f", "arguments": "{}"}}]) | ODD
MESSAGES = st.dictionaries(st.sampled_from(["role", "content", "text"]), ROLES | ODD) | (
    st.fixed_dictionaries(
        {"role": ROLES | ODD},
        optional={"content": st.text() | PARTS | ODD, "tool_calls": CALLS, "name": ODD},
    )
)


def check(message: Any) -> tuple[str, str | None] | None:
    body = {"messages": [{"role": "user", "content": "x"}, message]}
    asked = EngineRequest(operation=Operation.CHAT, body=body, answer_id="a")
    try:
        assert check_request(asked, CAPABILITIES)["messages"] == body["messages"]
    except RequestError as error:
        return error.message, error.param
    return None


@given(MESSAGES)
def test_the_short_way_says_what_the_long_one_says(message: dict[str, Any]) -> None:
    # null counts as absent, and keeps a message from being plain
    long = check({**message, "name": message.get("name"), "tool_call_id": None, "x": None})
    assert check(message) == long


@given(ODD)
def test_what_is_no_message_is_refused_by_its_place(message: Any) -> None:
    assert check(message) == ("messages[1] must be an object.", "messages[1]")


def test_what_was_checked_before_holds_for_the_same_capabilities_only() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 50}
    asked = EngineRequest(operation=Operation.CHAT, body=body, answer_id="a")
    checked = (CAPABILITIES, check_request(asked, CAPABILITIES))
    again = msgspec.structs.replace(asked, checked=checked)
    fields = check_request(again, CAPABILITIES)
    fields["model"] = "as the engine calls it"
    assert check_request(again, CAPABILITIES) == checked[1]  # an engine writes into its own
    smaller = msgspec.structs.replace(CAPABILITIES, output_tokens_max=49)
    with pytest.raises(RequestError, match="at most 49 tokens"):
        check_request(again, smaller)
