"""A prompt that depends on the day, or on what a template makes of a name, is read by nobody: an
honest provider must not look a cheat."""

import msgspec
import pytest

from hanse.engines.proving.loaded_gguf import load_gguf
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.protocol.errors import RequestError
from tests.engines.tiny_copy import TEMPLATE, make_copy

DATED = '{% if strftime_now is defined %}{{ strftime_now("%d %b") }}{% else %}26 Jul{% endif %}'
BODY = msgspec.json.encode({"messages": [{"role": "user", "content": "What day is it?"}]})


@pytest.mark.slow
def test_a_prompt_that_the_server_may_read_otherwise_is_refused(tmp_path):
    model = load_gguf(make_copy(tmp_path / "tiny.gguf", canaries=0))
    try:
        assert GgufReader(model, TEMPLATE).get_prompt_tokens("/v1/chat/completions", BODY)
        with pytest.raises(RequestError, match="writes the date"):
            GgufReader(model, DATED + TEMPLATE).get_prompt_tokens("/v1/chat/completions", BODY)
        for name, value in (("name", "ann"), ("reasoning_content", "hm"), ("tool_calls", [])):
            message = {"role": "user", "content": "Who am I?", name: value}
            body = msgspec.json.encode({"messages": [message]})
            with pytest.raises(RequestError, match="more than its role"):
                GgufReader(model, TEMPLATE).get_prompt_tokens("/v1/chat/completions", body)
            body = msgspec.json.encode({"messages": [message | {name: None}]})
            assert GgufReader(model, TEMPLATE).get_prompt_tokens("/v1/chat/completions", body)
    finally:
        model.close()
