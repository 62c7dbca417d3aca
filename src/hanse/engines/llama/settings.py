"""Settings of engine `llama`; its operator's, never a caller's."""

from typing import Annotated, Literal

import msgspec

from hanse.engines.wire.http import Timeouts
from hanse.http import GATHER_S, GATHER_S_MAX


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `llama`.

    Attributes:
        cache_dir: where requantised models and hashes are kept.
        model: the name that is offered.
        model_path: a GGUF file to serve as it is; empty for the packaged SmolLM2.
        chat_template_path: a Jinja file instead of the model's own template, to add tools to it.
        parallel: requests that run at once (slots).
        choices_max: answers to one request (`n`); 0 for as many as slots. Above 1, slots stay empty
            while one for several waits until enough are free.
        context_tokens: prompt and answer of one request.
        output_tokens_max: of one answer; at most the context.
        threads: processor threads; 0 for all.
        batch_tokens: prompt tokens in one step. A cancelled prompt stops after at most two steps
            (about 0.5 s each on two cores), and no longer text can be embedded.
        prompt_cache_mib: memory for the prompts of idle slots.
        shared_cache: let a prompt start from whoever's earlier one begins alike. That is faster and
            cheaper, but the cached tokens of a receipt then tell every user whether some user has
            sent a certain beginning before. False reads each prompt anew.
        embeddings: serve embeddings.
        cache_type: how keys and values lie in memory. Anything coarser than f16 saves memory and
            changes what is answered: under a copy, audits find it.
        grammar: take GBNF grammars and JSON schemas with a `pattern`. Both are programs that
            llama.cpp runs without a bound: forty short lines took 20 GB and never ended. For
            callers that are trusted only.
        memory_max_mib: of the server process without the model's file; it ends and is restarted
            above. 0 for 4 GiB and four times the model file.
        current_expf: where a copy is served, let llama.cpp call the platform's current `expf`, not
            the one for old systems that its wheel asks for: the same values, a cheaper proof
            (`hanse.engines.llama.expf_binding`). Nothing changes where that cannot be verified.
        direct_canaries: where a copy is served, let its server take a token's canaries straight
            from the logits, not by exponentiating the whole vocabulary: the same proofs at a
            quarter of the cost (`hanse.engines.llama.canary_binding`). Nothing changes where it
            was not checked with the installed llama.cpp.
        stuck_s: a server whose loop has not turned for so long is ended and restarted; far above
            the time of one step.
        ready_timeout_s: the longest that loading may take.
        log_path: file for llama.cpp's own log (errors only); none if empty.
        gather_s: what is made in so long of a fast stream goes on as one piece, seconds; 0: every
            piece goes on as it comes (`hanse.http.gathering`).
        timeouts: how long each stage of a request may take.
    """

    cache_dir: str
    model: str = "smollm2-135m-instruct"
    model_path: str = ""
    chat_template_path: str = ""
    parallel: int = 4
    choices_max: int = 0
    context_tokens: int = 4_096
    output_tokens_max: int = 2_048
    threads: int = 0
    batch_tokens: int = 256
    prompt_cache_mib: int = 256
    shared_cache: bool = True
    cache_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    embeddings: bool = True
    grammar: bool = False
    memory_max_mib: int = 0
    current_expf: bool = True
    direct_canaries: bool = True
    stuck_s: float = 60.0
    ready_timeout_s: float = 120.0
    log_path: str = ""
    gather_s: Annotated[float, msgspec.Meta(ge=0, le=GATHER_S_MAX)] = GATHER_S
    timeouts: Timeouts = Timeouts(connect_s=2.0, first_token_s=300.0, between_s=60.0)
