"""A provider's own copy of a model: made from a key, traced by it, and attacked as others would.

    keys.py           from the master key to a copy's randomness, the same on every machine
    rotations.py      orthogonal matrices out of elementwise steps
    weight_files.py   weights of any GGUF file
    architectures.py  what can be rebased, and what is refused with why
    stream_basis.py   the basis of the residual stream
    symmetries.py     the changes that leave every logit as it was
    canaries.py       the rows whose logits are the fingerprint
    writing.py        GGUF, quantised by llama.cpp
    leaks/            attacks on copies, and tracing of those that leaked
    rebasing.py       all of it: source and key -> copy and `<file>.copy.json`
    graphs.py         which graph of llama.cpp serves a copy, and can lift its canaries
    lifting.py        whether the lift holds for this model
    folders.py        the same as a folder with safetensors, for vLLM

What a copy is good for: it is bound to its provider, tamper-evident and attributable; casual
copying and swapping fail. Weights and prompts are not secret by it (`docs/verification/copies.md`).
"""

from hanse.models.copies.rebasing import CopyOrder, read_copy_description, rebase
from hanse.protocol.commitments.copies import CopyDescription

__all__ = ["CopyDescription", "CopyOrder", "read_copy_description", "rebase"]
