"""Running models behind one interface.

    engine = open_engine("llama", {"cache_dir": "..."})
    await engine.start(progress)         # progress(what, part done or None)
    engine.capabilities                  # operations, context_tokens, output_tokens_max ...
    request = EngineRequest(operation=Operation.CHAT, body={...}, answer_id="chatcmpl-1")
    await engine.answer(request)         # Answer(body, usage, finish_reason)
    stream = engine.stream(request)      # async generator of Chunk(data, usage, finish_reason)
    async for chunk in stream: ...       # chunk.data: SSE frames ready to send, without [DONE]
    await stream.aclose()                # stops the engine's work
    await engine.count_tokens(request)
    await engine.healthy()
    await engine.describe_model()        # quantisation, files with their SHA-256
    await engine.close()

base           the interface: Engine, EngineRequest, Chunk, Answer, Capabilities
registry       engines by name; a new engine is one file named `<name>_engine.py`
parameters     which fields of an OpenAI request are taken, ignored or refused
llama_engine   llama.cpp in a process of its own, with the packaged SmolLM2
llama          what that is made of
upstream_engine  any OpenAI-compatible server by URL
wire           OpenAI's HTTP API as these two speak it
proving        the proof of a provider's own copy beside each answer, and prefills for audits
whisper_engine   transcriptions by faster-whisper
hibari_engine  English speech
audio          what these two share
echo_engine    a deterministic FAKE for tests and benchmarks; it runs no model

Usage is `hanse.protocol.messages.Usage`: input without the cached tokens, cached, output.
Failures are RequestError (the caller's) and TransientError (the engine's).
"""

from hanse.engines.base import (
    Answer,
    Capabilities,
    CheckedFields,
    Chunk,
    Engine,
    EngineRequest,
    ModelDescription,
    ModelFile,
    Operation,
    Progress,
)
from hanse.engines.registry import list_engines, open_engine

__all__ = [
    "Answer",
    "Capabilities",
    "Chunk",
    "Engine",
    "CheckedFields",
    "EngineRequest",
    "ModelDescription",
    "ModelFile",
    "Operation",
    "Progress",
    "list_engines",
    "open_engine",
]
