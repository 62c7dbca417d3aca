"""The child process of engine `llama`: llama.cpp's HTTP server on a private socket.

Run by `hanse.engines.llama.process` as `python -m hanse.engines.llama.server`. Its configuration,
with the socket's key, comes as one JSON line on standard input, never as an argument; it says how
far it is on standard output, one JSON line each. Standard input stays open: when it ends, the
parent is gone, and so is this process. On Linux the kernel sees to that too, also while a model
loads.
"""

import os
import sys
import threading
from typing import Any

import msgspec

from hanse.engines.child_process import bound_memory, follow_parent
from hanse.engines.llama.canary_binding import CanaryRows, bind_canaries
from hanse.engines.llama.expf_binding import bind_current_expf

NOT_WANTED = "not wanted"


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent sends.

    Attributes:
        model_path: GGUF file.
        alias: model name in every answer.
        chat_template: Jinja text in place of the model's own; empty for its own.
        socket_path: unix socket to listen on; ends in `.sock`.
        api_key: what every request must carry.
        parallel: slots.
        context_tokens: of one slot.
        threads: for decoding and for prompts.
        batch_tokens: prompt tokens in one step; also the longest text that can be embedded.
        prompt_cache_mib: memory for prompts of idle slots.
        cache_type: of keys and values, GGML's name.
        embeddings: serve them too, by the mean over tokens.
        memory_max_mib: of this process, the model's file not counted; Linux only.
        current_expf: take the platform's current one (`expf_binding`).
        canaries: read them directly (`canary_binding`); None not to.
        parent_pid: whose end is ours.
    """

    model_path: str
    alias: str
    chat_template: str
    socket_path: str
    api_key: str
    parallel: int
    context_tokens: int
    threads: int
    batch_tokens: int
    prompt_cache_mib: int
    cache_type: str
    embeddings: bool
    memory_max_mib: int
    current_expf: bool
    canaries: CanaryRows | None
    parent_pid: int


def main() -> None:
    """Serve until standard input ends."""
    # llama.cpp writes its log where it likes; the parent's lines have a descriptor of their own.
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=ServerConfig)
    follow_parent(config.parent_pid)
    bound_memory(config.memory_max_mib)
    threading.Thread(target=_exit_at_end_of_input, args=(config.socket_path,), daemon=True).start()
    _say(pipe, {"state": "loading"})
    try:
        import xllamacpp

        bound = _bind(config)
        server = xllamacpp.Server(_make_params(xllamacpp, config))
    except Exception as error:  # whatever the library throws, the parent must hear of it
        _say(pipe, {"state": "failed", "reason": f"{type(error).__name__}: {error}"[:300]})
        os._exit(1)
    _say(pipe, {"state": "ready", **bound})
    threading.Event().wait()
    del server


def _make_params(xllamacpp: Any, config: ServerConfig) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = config.model_path
    params.model_alias = {config.alias}
    params.hostnames = [config.socket_path]
    params.api_keys = [config.api_key]
    params.n_parallel = config.parallel
    params.n_ctx = config.parallel * config.context_tokens
    batch_tokens = config.batch_tokens
    if config.embeddings:  # its pooling aborts while loading unless the slots divide a step evenly
        batch_tokens = max(config.parallel, batch_tokens - batch_tokens % config.parallel)
    params.n_batch = params.n_ubatch = batch_tokens
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads
    # A stream holds one HTTP thread; counting tokens and health must find another.
    params.n_threads_http = 4 * config.parallel + 16
    params.cache_ram_mib = config.prompt_cache_mib
    if config.cache_type != "f16":
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config.cache_type.upper()}")
        params.cache_type_k = params.cache_type_v = kind
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.cont_batching = True
    params.endpoint_slots = True
    params.ui = False
    params.use_jinja = True
    params.chat_template = config.chat_template
    # Above "errors" the log may hold prompts.
    params.verbosity = 1
    if config.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _bind(config: ServerConfig) -> dict[str, str]:
    """What became of each pointer that was to be set."""
    library = getattr(sys.modules.get("xllamacpp.xllamacpp"), "__file__", None)
    if library is None:
        return dict.fromkeys(("expf", "canaries"), "the wheel has another form")
    expf = bind_current_expf(library) if config.current_expf else NOT_WANTED
    canaries = bind_canaries(library, config.canaries) if config.canaries else NOT_WANTED
    return {"expf": expf, "canaries": canaries}


def _exit_at_end_of_input(socket_path: str) -> None:
    while sys.stdin.buffer.read(1):
        pass
    for remove, path in ((os.unlink, socket_path), (os.rmdir, os.path.dirname(socket_path))):
        try:
            remove(path)
        except OSError:
            continue  # the parent has already done it
    os._exit(0)


def _say(pipe: Any, message: dict[str, str]) -> None:
    pipe.write(msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    main()
