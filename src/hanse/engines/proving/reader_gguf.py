"""A request read, and tokens spelled, as the served GGUF file does it: template and vocabulary.

The template is rendered by jinja2 as llama.cpp's server and transformers do it. A template that
comes out otherwise there (one with today's date in it) gives another number of tokens, which an
audit sees before it judges.

Implements `hanse.verification.audits.prefill.Reader`, which it does not import.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.engines.base import Operation
from hanse.protocol.errors import RequestError

_SPM, _BPE = 1, 2
"""llama.cpp's kinds of vocabulary that can be spelled here: SentencePiece, and GPT-2's bytes."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")

_READ = ("role", "content")
"""What is read of a message."""

TEMPLATE_CHARS_MAX = 262_144
"""A chat template is a few thousand characters."""


class GgufReader:
    """Reads for one model: its vocabulary and chat template, no weights."""

    def __init__(self, model: Any, chat_template: str = "", vocabulary: int = 0) -> None:
        """Take a model of `load_gguf`.

        Args:
            model: the loaded file.
            chat_template: in place of the model's own.
            vocabulary: of a copy, without its canaries; 0 for all of the file's.

        Raises:
            RequestError: its vocabulary is of a kind that cannot be spelled.
        """
        self._vocabulary = model.get_vocab()
        self.vocabulary = vocabulary or int(self._vocabulary.n_vocab)
        kind = int(self._vocabulary.vocab_type)
        if kind not in (_SPM, _BPE):
            raise RequestError(
                "configuration_invalid",
                f"The model's vocabulary is of kind {kind}; only {_SPM} and {_BPE} are read here.",
            )
        self._spell = _spell_bpe if kind == _BPE else _spell_spm
        self._template = chat_template or model.get_default_chat_template() or ""

    def get_prompt_tokens(self, path: str, body: bytes) -> Sequence[int]:
        """The prompt of a request as the server's template makes it.

        Raises:
            RequestError: `unprocessable`, it cannot be read here.
        """
        try:
            request = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _refuse("its body is no JSON object") from error
        if path == Operation.COMPLETION.path:
            return self._read_prompt(request.get("prompt"))
        if path != Operation.CHAT.path:
            raise _refuse(f"{path} has no prompt")
        return self._tokenise(self._render(request))

    def get_text(self, tokens: Sequence[int]) -> bytes:
        """What tokens spell; special ones, and what is no token, spell nothing."""
        vocabulary = self._vocabulary
        return b"".join(
            self._spell(vocabulary.get_text(token))
            for token in tokens
            if 0 <= token < self.vocabulary  # llama.cpp ends the process for any other
            and not (vocabulary.is_control(token) or vocabulary.is_eog(token))
        )

    def _read_prompt(self, prompt: Any) -> list[int]:
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return self._tokenise(prompt)
        if isinstance(prompt, list) and all(type(token) is int for token in prompt):
            return prompt
        raise _refuse("its prompt is neither a text nor a list of tokens")

    def _tokenise(self, text: str) -> list[int]:
        return list(self._vocabulary.tokenize(text, True, True))

    def _render(self, request: dict[str, Any]) -> str:
        if request.get("tools"):
            raise _refuse("it has tools, whose form in the prompt is the server's own")
        messages, sent = [], request.get("messages") or []
        if not isinstance(sent, list) or not all(isinstance(message, dict) for message in sent):
            raise _refuse("its messages are no list of messages")
        for message in sent:
            content = message.get("content")
            role = "system" if message.get("role") == "developer" else message.get("role")
            if not isinstance(content, str) or not isinstance(role, str):
                raise _refuse("a message's content or role is not one text")
            if any(value is not None for name, value in message.items() if name not in _READ):
                # what a server's template makes of a name, a call or thoughts is its own: were
                # the prompt as long as without them, nothing would show that it is another
                raise _refuse("a message says more than its role and content")
            messages.append({"role": role, "content": content})
        if not messages or messages[-1]["role"] != "assistant":
            return self._fill(messages)
        begun = messages.pop()["content"]  # the server goes on from there, in the turn's beginning
        if not begun or (messages and messages[-1]["role"] == "assistant"):
            raise _refuse("it goes on from an answer that is empty, or one of two")
        return self._fill(messages) + begun

    def _fill(self, messages: list[dict[str, Any]]) -> str:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if not self._template or len(self._template) > TEMPLATE_CHARS_MAX:
            raise _refuse("the model has no chat template that can be used")
        if "strftime_now" in self._template:
            # another day has as many tokens, so nothing would show that the prompt is another
            raise _refuse("the model's chat template writes the date into the prompt")
        world = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        world.globals["raise_exception"] = _raise_exception
        try:
            return world.from_string(self._template).render(
                messages=messages,
                add_generation_prompt=True,
                bos_token="",  # the tokeniser adds it where the model wants one
                eos_token=self._vocabulary.get_text(self._vocabulary.token_eos()),
            )
        except (
            Exception
        ) as error:  # a template is a program, and may do with a request what it likes
            raise _refuse(f"the model's chat template refuses it: {error}") from error


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _spell_bpe(text: str) -> bytes:
    """GPT-2 writes each byte as a letter; what is none of these letters stands for itself."""
    return b"".join(
        bytes((_LETTERS[char],)) if char in _LETTERS else char.encode() for char in text
    )


def _spell_spm(text: str) -> bytes:
    if found := _BYTE.fullmatch(text):
        return bytes((int(found.group(1), 16),))
    return text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _make_letters() -> dict[str, int]:
    """GPT-2's letter of each byte: itself if it can be printed, else the next from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_LETTERS = _make_letters()


def _refuse(why: str) -> RequestError:
    return RequestError("unprocessable", f"This request cannot be read for an audit: {why}.")
