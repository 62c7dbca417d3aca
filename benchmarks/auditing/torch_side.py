"""torch with many answers at once: a prover, and an auditor that reads each prompt once.

The product's `TorchPrefill` runs one answer at a time. Here its weights run over packed rows: the
tokens of many prompts and answers one after the other in every matrix product, apart only in the
attention. Arithmetic and rounding are float32 as there; what differs is the batch, as it does
between honest machines.

    scores = model.score_many([(prompt, [answer, answer, ...]), ...])
    written = model.write([Order(prompt, chain, seed, tokens), ...])

As a prover it is what another runtime has to be: the sampler of
`hanse.verification.audits.sampling` with the request's seed, and the canaries' logits of each
token as its fingerprint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.engines.proving.prefill_torch import TorchPrefill
from hanse.engines.proving.scores import CopyScores, join_rows
from hanse.protocol.commitments.fingerprints import quantise
from hanse.protocol.commitments.tree import Entry
from hanse.verification.audits.sampling import Chain, get_draws, sample

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""One prompt and the answers to it."""


@dataclass(frozen=True)
class Order:
    """One answer to be written."""

    prompt: tuple[int, ...]
    chain: Chain
    seed: int
    tokens: int


@dataclass
class _Cache:
    """Keys and values of all sequences, a pair a layer: [sequences, heads, places, width]."""

    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


class TorchMany(TorchPrefill):
    """Packed batches over the same weights."""

    def __init__(self, path: Path, *, context_tokens: int, threads: int, end: int) -> None:
        super().__init__(path, context_tokens=context_tokens, threads=threads)
        self._end = end

    def score_many(self, groups: Sequence[Group]) -> list[list[CopyScores]]:
        """Prefill of all groups in one pass; scores of each answer of each."""
        import torch

        tokens: list[int] = []
        places: list[int] = []
        spans: list[tuple[int, int, Any]] = []
        wanted: list[list[list[int]]] = []
        for prompt, answers in groups:
            start = len(tokens)
            rows, answer_places, mask = _lay_out(prompt, answers)
            tokens += rows
            places += answer_places
            spans.append((start, len(tokens), mask))
            wanted.append(_find_rows(start, len(prompt), answers))
        with torch.inference_mode():
            turn = self._turn_at(torch.tensor(places))
            hidden = self._pass(torch.tensor(tokens), turn, spans, None)
            flat = [row for group in wanted for answer in group for row in answer]
            logits = self._get_logits(hidden[flat]).numpy()
        found, at = [], 0
        for group in wanted:
            scores = []
            for answer in group:
                rows_of = list(logits[at : at + len(answer)])
                scores.append(join_rows(rows_of, self._vocabulary, self._canaries))
                at += len(answer)
            found.append(scores)
        return found

    def write(self, orders: Sequence[Order], scale: float) -> list[tuple[Entry, ...]]:
        """Answers to all orders at once, sampled by their seeds, with their fingerprints."""
        import torch

        draws = [get_draws(order.seed, order.tokens) for order in orders]
        written: list[list[Entry]] = [[] for _ in orders]
        with torch.inference_mode():
            cache, last = self._read_prompts(orders)
            lengths = torch.tensor([len(order.prompt) for order in orders])
            width = int(lengths.max())
            is_seen = torch.arange(width)[None, :] < lengths[:, None]
            active = list(range(len(orders)))
            for step in range(max(order.tokens for order in orders)):
                rows = self._get_logits(last).numpy()
                for row, number in zip(rows, active, strict=True):
                    chain, draw = orders[number].chain, float(draws[number][step])
                    token = sample(row[: self._vocabulary], chain, draw)
                    canaries = row[self._vocabulary :][: self._canaries].tolist()
                    written[number].append(Entry(token, quantise(canaries, scale)))
                kept = [
                    place
                    for place, number in enumerate(active)
                    if written[number][-1].token != self._end
                    and len(written[number]) < orders[number].tokens
                ]
                if not kept:
                    break
                if len(kept) < len(active):
                    active = [active[place] for place in kept]
                    is_seen, lengths = is_seen[kept], lengths[kept]
                    cache.keys = [one[kept] for one in cache.keys]
                    cache.values = [one[kept] for one in cache.values]
                is_seen = torch.cat((is_seen, torch.ones(len(active), 1, dtype=torch.bool)), 1)
                tokens = torch.tensor([written[number][-1].token for number in active])
                turn = self._turn_at(lengths + step)
                last = self._pass(tokens, turn, is_seen[:, None, None, :], cache)
        return [tuple(entries) for entries in written]

    def _read_prompts(self, orders: Sequence[Order]) -> tuple[_Cache, Any]:
        """Each different prompt once; its keys and values for every order that has it."""
        import torch

        prompts = list(dict.fromkeys(order.prompt for order in orders))
        spans, start = [], 0
        for prompt in prompts:
            spans.append((start, start + len(prompt), None))
            start += len(prompt)
        places = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
        packed = _Cache()
        tokens = torch.tensor([token for prompt in prompts for token in prompt])
        hidden = self._pass(tokens, self._turn_at(places), spans, packed)
        numbers = {prompt: number for number, prompt in enumerate(prompts)}
        of = [spans[numbers[order.prompt]] for order in orders]
        width = max(end - begin for begin, end, _ in of)
        cache = _Cache()
        for packed_list, target in ((packed.keys, cache.keys), (packed.values, cache.values)):
            for layer in packed_list:  # [heads, tokens, width of a head]
                whole = layer.new_zeros(len(of), layer.shape[0], width, layer.shape[2])
                for number, (begin, end, _) in enumerate(of):
                    whole[number, :, : end - begin] = layer[:, begin:end]
                target.append(whole)
        return cache, hidden[[end - 1 for _, end, _ in of]]

    def _get_logits(self, hidden: Any) -> Any:
        logits = hidden @ self._head().T
        bias = self._weights.get("output.bias")
        return logits if bias is None else logits + bias

    def _turn_at(self, places: Any) -> tuple[Any, Any]:
        cosine, sine = self._make_turn(int(places.max()) + 1)
        return cosine[places], sine[places]

    def _pass(self, tokens: Any, turn: tuple[Any, Any], apart: Any, cache: _Cache | None) -> Any:
        """Hidden states of packed tokens.

        `apart` is a list of spans (a prefill), or a mask over the cache's places (one token of each
        sequence).
        """
        hidden = self._weights["token_embd.weight"][tokens]
        for layer in range(self._shape.layers):
            at = f"blk.{layer}."
            normed = self._norm(hidden, f"{at}attn_norm")
            hidden = hidden + self._attend_apart(normed, layer, turn, apart, cache)
            hidden = hidden + self._feed_forward(self._norm(hidden, f"{at}ffn_norm"), at)
        return self._norm(hidden, "output_norm")

    def _attend_apart(
        self, normed: Any, layer: int, turn: tuple[Any, Any], apart: Any, cache: _Cache | None
    ) -> Any:
        import torch

        shape, count, at = self._shape, len(normed), f"blk.{layer}."

        def split(name: str, heads: int) -> Any:
            return self._map(normed, f"{at}{name}").view(count, heads, -1).transpose(0, 1)

        query = self._turn(split("attn_q", shape.heads), turn)
        key = self._turn(split("attn_k", shape.key_value_heads), turn)
        value = split("attn_v", shape.key_value_heads)
        times = shape.heads // shape.key_value_heads
        attend = torch.nn.functional.scaled_dot_product_attention
        if isinstance(apart, list):
            if cache is not None:
                cache.keys.append(key)
                cache.values.append(value)
            key, value = key.repeat_interleave(times, 0), value.repeat_interleave(times, 0)
            parts = []
            for start, end, mask in apart:
                these = (query[:, start:end], key[:, start:end], value[:, start:end])
                parts.append(attend(*these, attn_mask=mask, is_causal=mask is None))
            out = torch.cat(parts, 1)
        else:
            assert cache is not None
            keys = torch.cat((cache.keys[layer], key.transpose(0, 1)[:, :, None]), 2)
            values = torch.cat((cache.values[layer], value.transpose(0, 1)[:, :, None]), 2)
            cache.keys[layer], cache.values[layer] = keys, values
            # the queries of the heads that share a key are rows of one product
            grouped = query.transpose(0, 1).reshape(count, shape.key_value_heads, times, -1)
            out = attend(grouped, keys, values, attn_mask=apart)
            out = out.reshape(count, shape.heads, -1).transpose(0, 1)
        return self._map(out.transpose(0, 1).reshape(count, -1), f"{at}attn_output")


def _lay_out(
    prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], Any]:
    """Rows, their positions, and who sees whom: the prompt, then the answers side by side."""
    import torch

    tokens, places = list(prompt), list(range(len(prompt)))
    branches = [-1] * len(prompt)
    for number, answer in enumerate(answers):
        fed = answer[:-1]
        tokens += fed
        places += range(len(prompt), len(prompt) + len(fed))
        branches += [number] * len(fed)
    place, branch = torch.tensor(places), torch.tensor(branches)
    is_earlier = place[:, None] >= place[None, :]
    is_same = (branch[None, :] == -1) | (branch[:, None] == branch[None, :])
    return tokens, places, is_earlier & is_same


def _find_rows(start: int, prompt_tokens: int, answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each answer the rows that chose its tokens: the prompt's last, then its own."""
    found, at = [], start + prompt_tokens
    for answer in answers:
        found.append([start + prompt_tokens - 1, *range(at, at + len(answer) - 1)])
        at += len(answer) - 1
    return found
