"""A prompt that depends on the day is read by nobody: an honest provider must not look a cheat."""

import msgspec
import pytest

from hanse.engines.proving.loaded_gguf import load_gguf
from hanse.engines.proving.reader_gguf import GgufReader
from hanse.protocol.errors import RequestError
from tests.engines.tiny_copy import TEMPLATE, make_copy

DATED = '{% if strftime_now is defined %}{{ strftime_now("%d %b") }}{% else %}26 Jul{% endif %}'
BODY = msgspec.json.encode({"messages": [{"role": "user", "content": "What day is it?"}]})


@pytest.mark.slow
def test_a_template_with_the_date_is_refused(tmp_path):
    model = load_gguf(make_copy(tmp_path / "tiny.gguf", canaries=0))
    try:
        assert GgufReader(model, TEMPLATE).get_prompt_tokens("/v1/chat/completions", BODY)
        with pytest.raises(RequestError, match="writes the date"):
            GgufReader(model, DATED + TEMPLATE).get_prompt_tokens("/v1/chat/completions", BODY)
    finally:
        model.close()
