"""A GGUF file loaded by cyllama, llama.cpp's binding: shared by prefill and reader.

cyllama comes with the extra `models`; nothing that serves needs it.
"""

from pathlib import Path
from typing import Any

from hanse.engines.child_process import set_openmp
from hanse.protocol.errors import RequestError


def load_gguf(path: Path) -> Any:
    """The model, on the processor.

    Raises:
        RequestError: cyllama is not installed, or the file cannot be loaded.
    """
    set_openmp()
    try:
        from cyllama.llama import llama_cpp
    except ImportError as error:
        raise RequestError(
            "configuration_invalid",
            "Audits with llama.cpp need cyllama; run: pip install 'hanse[models]'",
        ) from error

    class Model(llama_cpp.LlamaModel):  # type: ignore[misc]  # untyped
        """With a count that cyllama's `get_logits_ith` reads and its own class lacks."""

        n_vocab = 0

    if not path.is_file():
        raise RequestError("configuration_invalid", f"There is no model file {path}.")
    llama_cpp.disable_logging()  # it may hold prompts
    llama_cpp.ggml_backend_load_all()
    try:
        # all of it: with vocab_only cyllama asks for a layer that is not there, and aborts
        model = Model(str(path), llama_cpp.LlamaModelParams())
    except Exception as error:  # whatever the binding throws
        raise RequestError(
            "configuration_invalid", f"llama.cpp cannot load {path.name}: {error}"
        ) from error
    model.n_vocab = model.get_vocab().n_vocab
    return model
