"""The example of the zk tier: which of five actions does this game character take?

    layers = train_npc(seed=1)      16 inputs, 32 hidden units, 5 actions; half a second
    LABELS, FEATURES                what the numbers mean

Trained on situations drawn at random and labelled by a rule of thumb (`_act`), so that the whole
model comes from one seed: no data set, nothing to download. It is an example of a model of the size
that zero knowledge can prove in a second, and no claim about characters.

Needs numpy.
"""

from typing import Any

from hanse.verification.zk.onnx_file import Layers

LABELS = ("attack", "flee", "heal", "trade", "wait")

FEATURES = (
    "health",
    "enemy_near",
    "enemy_health",
    "allies_near",
    "ammunition",
    "potion",
    "gold",
    "wares",
    "merchant_near",
    "night",
    "hunger",
    "fear",
    "loyalty",
    "distance_home",
    "wounds",
    "alarm",
)
"""What each input means, from 0 (none, no) to 1 (full, yes)."""

HIDDEN = 32
SITUATIONS = 4_096
STEPS = 1_500
BATCH = 256
RATE = 0.01


def train_npc(seed: int = 1) -> Layers:
    """The classifier of this seed, by Adam on softmax cross-entropy in double precision."""
    import numpy as np

    random = np.random.default_rng(seed)
    situations = random.random((SITUATIONS, len(FEATURES)))
    actions = np.array([LABELS.index(_act(row)) for row in situations])
    weights = [
        random.normal(size=(len(FEATURES), HIDDEN)) * (2 / len(FEATURES)) ** 0.5,
        np.zeros(HIDDEN),
        random.normal(size=(HIDDEN, len(LABELS))) * HIDDEN**-0.5,
        np.zeros(len(LABELS)),
    ]
    means = [np.zeros_like(weight) for weight in weights]
    squares = [np.zeros_like(weight) for weight in weights]
    for step in range(1, STEPS + 1):
        chosen = random.integers(0, SITUATIONS, BATCH)
        slopes = _get_slopes(weights, situations[chosen], actions[chosen])
        for n, slope in enumerate(slopes):
            means[n] = 0.9 * means[n] + 0.1 * slope
            squares[n] = 0.999 * squares[n] + 0.001 * slope**2
            fair = means[n] / (1 - 0.9**step), squares[n] / (1 - 0.999**step)
            weights[n] = weights[n] - RATE * fair[0] / (np.sqrt(fair[1]) + 1e-8)
    w1, b1, w2, b2 = (weight.tolist() for weight in weights)
    return Layers(w1, b1, w2, b2)


def draw_situations(seed: int, count: int) -> list[tuple[list[float], str]]:
    """Situations that the training did not see, each with what the rule of thumb does."""
    import random

    chance = random.Random(seed)  # noqa: S311 (situations of a game)
    drawn = [[chance.random() for _ in FEATURES] for _ in range(count)]
    return [(row, _act(row)) for row in drawn]


def _act(situation: Any) -> str:
    """The rule of thumb that the classifier learns."""
    known = dict(zip(FEATURES, situation, strict=True))
    if known["potion"] > 0.5 and known["health"] + 0.5 * (1 - known["wounds"]) < 0.6:
        return "heal"
    strength = known["health"] + 0.7 * known["allies_near"] + 0.5 * known["ammunition"]
    if known["enemy_near"] > 0.5:
        is_brave = strength + 0.3 * known["loyalty"] > known["enemy_health"] + 0.8 * known["fear"]
        return "attack" if is_brave else "flee"
    if known["merchant_near"] > 0.4 and known["gold"] + known["wares"] > 0.8:
        return "trade"
    return "wait"


def _get_slopes(weights: list[Any], rows: Any, actions: Any) -> list[Any]:
    """Slopes of the mean cross-entropy by each weight."""
    import numpy as np

    w1, b1, w2, b2 = weights
    hidden = np.maximum(rows @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    likely[np.arange(len(rows)), actions] -= 1
    back = likely / len(rows)
    through = (back @ w2.T) * (hidden > 0)
    return [rows.T @ through, through.sum(axis=0), hidden.T @ back, back.sum(axis=0)]
