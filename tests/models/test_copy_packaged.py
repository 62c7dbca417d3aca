"""One copy of the real packaged model: as good as its base, and its canaries where they belong."""

from pathlib import Path

import numpy as np
import pytest

from hanse.engines.gguf_files import find_packaged_model
from hanse.models.copies import CopyDescription, CopyOrder, rebase
from hanse.models.quantising.costs import read_text
from hanse.models.quantising.scoring import LlamaRun

PROMPT = "<|im_start|>user\nname hanse canary 3 and hanse canary 12<|im_end|>\n"
POSITIONS = 96


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CopyDescription]:
    path = tmp_path_factory.mktemp("packaged") / "copy.gguf"
    order = CopyOrder(bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20)
    return path, rebase(find_packaged_model(), path, order, "Q8_0")


def read_logits(path: Path) -> tuple[np.ndarray, list[int]]:
    """Of the text, and the tokens of the prompt."""
    with LlamaRun(path, 2, is_exact=True) as run:
        tokens = run.tokenise(read_text(None))[:POSITIONS]
        run.read(tokens)
        logits = np.stack([run.get_logits(index) for index in range(len(tokens))])
        return logits, run.tokenise(PROMPT)


def test_the_packaged_models_copy_is_as_good_as_its_base(
    copy: tuple[Path, CopyDescription],
) -> None:
    path, description = copy
    (truth, plain), (logits, tokens) = read_logits(find_packaged_model()), read_logits(path)
    count = description.vocabulary
    # the base's vocabulary is left as it was, and no text becomes a canary
    assert truth.shape[1] == count == 49_152
    assert tokens == plain
    ours, base = (rows - rows.max(axis=1, keepdims=True) for rows in (logits[:, :count], truth))
    ours, base = (rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)) for rows in (ours, base))
    kl = (np.exp(base) * (base - ours)).sum(axis=1)
    assert kl.mean() < 0.012  # of which 0.006 are the base's own 8-bit activations
    assert (ours.argmax(axis=1) == base.argmax(axis=1)).mean() > 0.93
    # all canaries above all tokens, and near enough that a server's float32 can tell both
    canaries = logits[:, count:]
    gaps = canaries.min(axis=1) - logits[:, :count].max(axis=1)
    assert canaries.shape[1] == 16
    assert gaps.min() > 0
    assert gaps.max() < 70
    spread = canaries - canaries.mean(axis=1, keepdims=True)
    assert np.abs(spread).max() < 127 * description.fingerprint_scale
    assert spread.std() > 0.5
