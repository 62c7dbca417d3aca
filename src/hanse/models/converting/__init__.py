"""Safetensors as Hugging Face has them, written as one GGUF file.

    config.py        what config.json says, or why it cannot be converted
    tokenizing.py    the tokenizer's vocabulary, by the kinds that llama.cpp knows
    writing.py       `convert_folder`: all of it, one tensor at a time

llama.cpp's own converter is in no package. This one is for the Llama family and Qwen2, and refuses
whatever it does not know by name: a tensor that is left out is a model that talks nonsense. The
tokenizer is tried on our text in both runtimes before the file gets its name.
"""

from hanse.models.converting.writing import convert_folder

__all__ = ["convert_folder"]
