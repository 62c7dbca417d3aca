"""The process in which llama.cpp quantises and runs models.

    python -m hanse.models.quantising.worker < job.json

A job is one JSON object; answers are JSON lines: `{"text": ..., "share": ...}` for progress, then
one `{"result": ...}` or `{"refused": "why"}`. llama.cpp's own words go nowhere.
"""

import os
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from hanse.models.ggml_types import FILE_TYPES
from hanse.models.tensors import Progress


class QuantiseJob(msgspec.Struct, tag="quantise", frozen=True, kw_only=True):
    """Write `target` from `source` as this type."""

    source: str
    target: str
    quantisation: str
    threads: int


class ScoreJob(msgspec.Struct, tag="score", frozen=True, kw_only=True):
    """Run a model over a text.

    Attributes:
        text: what it reads.
        tokens_max: of the text.
        reference: file of the source's log probabilities.
        role: whether to write that file, or to compare with it.
    """

    model: str
    text: str
    tokens_max: int
    threads: int
    reference: str
    role: Literal["source", "candidate"]


class TokeniseJob(msgspec.Struct, tag="tokenise", frozen=True, kw_only=True):
    """Tell the tokens of each text."""

    model: str
    texts: tuple[str, ...]


class MarginJob(msgspec.Struct, tag="margin", frozen=True, kw_only=True):
    """Tell how far a copy's last `canaries` logits are above its others, over a text."""

    model: str
    text: str
    tokens_max: int
    canaries: int
    threads: int


Job = QuantiseJob | ScoreJob | TokeniseJob | MarginJob


def main() -> int:
    """Do the job on standard input; 0 also where it was refused with a reason."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    # C code may print whatever it likes: answers go out by a descriptor that only `say` knows
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(**line: Any) -> None:
        answers.write(msgspec.json.encode(line) + b"\n")
        answers.flush()

    try:
        say(result=_do(job, lambda text, share: say(text=text, share=share)))
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        say(refused=f"{type(error).__name__}: {error}")
    return 0


def _do(job: Job, progress: Progress) -> Any:
    if isinstance(job, QuantiseJob):
        return _quantise(job)
    if isinstance(job, MarginJob):
        return _measure_margin(job, progress)
    return _score(job, progress) if isinstance(job, ScoreJob) else _tokenise(job)


def _quantise(job: QuantiseJob) -> dict[str, Any]:
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype = {name: number for number, name in FILE_TYPES.items()}[job.quantisation]
    params.nthread = job.threads
    # from F16 it changes nothing; whoever shrinks a Q8_0 is told of it by the command
    params.allow_requantize = True
    llama_cpp.model_quantize(job.source, job.target, params)
    return {"size_bytes": Path(job.target).stat().st_size}


def _score(job: ScoreJob, progress: Progress) -> Any:
    from hanse.models.quantising.scoring import LlamaRun, score

    with LlamaRun(Path(job.model), job.threads) as run:
        return msgspec.to_builtins(
            score(
                run,
                job.text,
                job.tokens_max,
                Path(job.reference),
                job.role == "source",
                progress,
            )
        )


def _measure_margin(job: MarginJob, progress: Progress) -> dict[str, float]:
    from hanse.models.quantising.scoring import LlamaRun, measure_margin

    with LlamaRun(Path(job.model), job.threads) as run:
        return measure_margin(run, job.text, job.tokens_max, job.canaries, progress)


def _tokenise(job: TokeniseJob) -> Any:
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    # the whole model: with vocab_only the package asks for a layer that is not there, and aborts
    model = llama_cpp.LlamaModel(job.model, llama_cpp.LlamaModelParams())
    vocabulary = model.get_vocab()
    tokens = [list(vocabulary.tokenize(text, False, False)) for text in job.texts]
    model.close()
    return {"tokens": tokens}


if __name__ == "__main__":
    sys.exit(main())
