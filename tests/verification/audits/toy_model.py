"""A model of a few hundred numbers, so that the rules of audits can be shown in milliseconds.

It is a recurrent network with a vocabulary of 64 letters and 16 canary rows. Another runtime is
the same network with a little noise on every logit; a cheat is another network, or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from hanse.protocol.commitments.fingerprints import quantise
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.errors import RequestError
from hanse.verification.audits.sampling import Chain, get_draws, sample

VOCABULARY = 64
WIDTH = 32
CANARIES = 16
FIRST_LETTER = 48
PLAIN = Chain(temperature_ppm=1_000_000, top_k=0, top_p_ppm=1_000_000, min_p_ppm=0)
GREEDY = Chain(temperature_ppm=0, top_k=0, top_p_ppm=1_000_000, min_p_ppm=0)


@dataclass
class ToyScores:
    canaries: Any
    logits: Any


class ToyModel:
    """`weights` is the network, `noise` how far another runtime's logits lie apart."""

    def __init__(self, weights: int = 1, *, noise: float = 0.0, damage: float = 0.0) -> None:
        made = np.random.default_rng(weights)
        # above 1 the network is chaotic, so that it never forgets its prompt
        self.recurrent = 2.5 * made.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        self.embedding = made.normal(size=(VOCABULARY, WIDTH))
        self.head = made.normal(size=(VOCABULARY, WIDTH)) * 0.5
        self.canaries = made.normal(size=(CANARIES, WIDTH)) / WIDTH**0.5
        worse = np.random.default_rng(99)
        self.recurrent += damage * worse.normal(size=self.recurrent.shape) / WIDTH**0.5
        self.noise = noise
        self._noise = np.random.default_rng(weights + 7)

    @property
    def runtime(self) -> str:
        return "toy 1"

    def score(self, prompt_tokens: Sequence[int], answer_tokens: Sequence[int]) -> ToyScores:
        tokens = [*prompt_tokens, *answer_tokens]
        rows = [self.step(state) for state in self.get_states(tokens)]
        first = len(prompt_tokens) - 1
        rows = rows[first : first + len(answer_tokens)]
        return ToyScores(
            np.array([canaries for canaries, _ in rows], dtype=np.float32),
            np.array([logits for _, logits in rows], dtype=np.float32),
        )

    def get_states(self, tokens: Sequence[int]) -> list[Any]:
        states, state = [], np.zeros(WIDTH)
        for token in tokens:
            state = np.tanh(self.recurrent @ state + self.embedding[token])
            states.append(state)
        return states

    def step(self, state: Any) -> tuple[Any, Any]:
        normed = state / np.sqrt((state**2).mean())
        normed = normed + self.noise * self._noise.normal(size=WIDTH)
        return self.canaries @ normed, self.head @ normed

    def generate(self, prompt: Sequence[int], count: int, chain: Chain, seed: int) -> list[Entry]:
        """Serve an answer: tokens and fingerprints."""
        draws, entries = get_draws(seed, count), []
        state = self.get_states(prompt)[-1]
        for draw in draws:
            canaries, logits = self.step(state)
            token = sample(np.asarray(logits, dtype=np.float32), chain, float(draw))
            entries.append(Entry(token, quantise(canaries.tolist())))
            state = np.tanh(self.recurrent @ state + self.embedding[token])
        return entries

    def fingerprint(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[Entry]:
        """One prefill over somebody else's text: what cheap text behind a full prefill commits."""
        rows = self.score(prompt, tokens).canaries.tolist()
        return [Entry(token, quantise(row)) for token, row in zip(tokens, rows, strict=True)]


class ToyReader:
    """One letter a token; ends the process for a token that it lacks, as llama.cpp does."""

    vocabulary = VOCABULARY

    def get_prompt_tokens(self, path: str, body: bytes) -> list[int]:
        try:
            messages = msgspec.json.decode(body)["messages"]
            text = "".join(message["content"] for message in messages)
        except (msgspec.DecodeError, KeyError, TypeError):
            raise RequestError("unprocessable", "the toy reads plain chats only") from None
        return [ord(letter) % VOCABULARY for letter in text]

    def get_text(self, tokens: Sequence[int]) -> bytes:
        assert all(0 <= token < self.vocabulary for token in tokens), "the process would end here"
        return bytes(FIRST_LETTER + token for token in tokens)
