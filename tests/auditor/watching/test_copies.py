"""What an offer is audited with: nothing that makes an honest provider look like a cheat."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from hanse.auditor.model_types import to_type
from hanse.auditor.opened_model import Keyed
from hanse.auditor.watching.copies import CopiesAtHand
from hanse.auditor.watching.watcher import keep_fairest
from hanse.models.copies.keys import commit_to_key, derive_copy_key
from hanse.protocol.commitments.copies import (
    CopyDescription,
    decode_copy_description,
    encode_copy_description,
)
from hanse.protocol.errors import RequestError
from hanse.verification.audits.calibration import Calibration, encode_calibration
from hanse.verification.audits.judging import Verdict
from tests.engines.tiny_copy import make_copy
from tests.protocol.made_messages import PROVIDER, make_offer
from tests.verification.audits.bought_answers import MANIFEST, calibrate

MASTER = bytes(range(32))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> CopyDescription:
    copy = make_copy(tmp_path_factory.mktemp("copies") / "any.gguf")
    found = decode_copy_description(copy.with_name("any.gguf.copy.json").read_bytes())
    key = derive_copy_key(MASTER, MANIFEST, PROVIDER, 0)
    return msgspec.structs.replace(
        found,
        provider=PROVIDER,
        base_root=MANIFEST,
        quantisation="Q8_0",
        key_commitment=commit_to_key(key),
    )


def put(folder: Path, name: str, copy: CopyDescription, **changes: Any) -> Path:
    """A copy's file, empty, with its description beside it."""
    told = msgspec.structs.replace(copy, **changes)
    (folder / f"{name}.gguf").touch()
    path = folder / f"{name}.gguf.copy.json"
    path.write_bytes(encode_copy_description(told))
    return path


def write(path: Path, **changes: Any) -> Path:
    """The toy's calibration, of Q8_0 and engine llama, with other conditions."""
    made: Calibration = calibrate()
    conditions = msgspec.structs.replace(made.conditions, **changes)
    path.write_bytes(encode_calibration(msgspec.structs.replace(made, conditions=conditions)))
    return path


def open_copies(folder: Path, *calibrations: Path, **options: Any) -> CopiesAtHand:
    return CopiesAtHand(folder, calibrations, **({"runtime": "llama", "threads": 1} | options))


OFFER = make_offer(provider=PROVIDER, manifest_root=MANIFEST, quantisation="Q8_0", engine="llama")


def test_all_epochs_of_an_offers_provider_are_named_the_newest_first(
    tmp_path: Path, described: CopyDescription
) -> None:
    for epoch in (1, 4, 2, 3):
        put(tmp_path, f"at-{epoch}", described, epoch=epoch)
    put(tmp_path, "elsewhere", described, base_root="0x" + "99" * 32, epoch=9)
    put(tmp_path, "another", described, provider="0x" + "98" * 20, epoch=9)
    (tmp_path / "rubbish.gguf.copy.json").write_bytes(b"{")
    put(tmp_path, "gone", described, epoch=8).with_name("gone.gguf").unlink()
    copies = open_copies(tmp_path, write(tmp_path / "c.json"))
    names = [one.path.name for one in copies.get_means(OFFER)]
    assert names == ["at-4.gguf", "at-3.gguf", "at-2.gguf"]
    with pytest.raises(RequestError, match="no copy of its provider"):
        copies.get_means(make_offer(manifest_root="0x" + "97" * 32))


def test_no_copy_and_no_thresholds_of_another_quantisation_are_taken(
    tmp_path: Path, described: CopyDescription
) -> None:
    """By those of 4 bits an honest answer of 8 would be a cheat's."""
    put(tmp_path, "coarse", described, quantisation="Q4_0")
    copies = open_copies(tmp_path, write(tmp_path / "c.json"))
    with pytest.raises(RequestError, match="at hand are Q4_0, offered was Q8_0"):
        copies.get_means(OFFER)
    put(tmp_path, "fine", described)
    assert [one.path.name for one in copies.get_means(OFFER)] == ["fine.gguf"]
    odd = msgspec.structs.replace(OFFER, quantisation="the best")
    assert {
        one.path.name
        for one in open_copies(
            tmp_path, write(tmp_path / "u.json", quantisation="unknown")
        ).get_means(odd)
    } == {"coarse.gguf", "fine.gguf"}  # a provider's words are no way out
    coarse = msgspec.structs.replace(OFFER, quantisation="Q4_0")
    with pytest.raises(RequestError, match="no calibration for Q4_0"):
        copies.get_means(coarse)
    untold = write(tmp_path / "u.json", quantisation="unknown")
    assert open_copies(tmp_path, untold).get_means(coarse)
    with pytest.raises(RequestError, match="no calibration"):
        open_copies(tmp_path).get_means(OFFER)


def test_of_several_calibrations_the_offered_engines_is_taken(
    tmp_path: Path, described: CopyDescription
) -> None:
    put(tmp_path, "one", described)
    first = write(tmp_path / "first.json", served_by="vllm 1")
    second = write(tmp_path / "second.json", served_by="llama 7")
    for given in ((first, second), (second, first)):
        (means,) = open_copies(tmp_path, *given).get_means(OFFER)
        assert means.calibration.conditions.served_by == "llama 7"


@pytest.mark.parametrize(
    ("told", "is_of"),
    [
        ("all F32", "F32"), ("Q8_0", "Q8_0"), ("Q4_K - Medium", "Q4_K_M"),
        ("Q3_K - Large", "Q3_K_L"), ("Q2_K - Medium", "Q2_K"), ("IQ4_NL - 4.5 bpw", "IQ4_NL"),
        ("(guessed) Q8_0", "Q8_0"), ("bf16", "BF16"), ("bfloat16", "BF16"), ("fp16", "F16"),
        ("8-bit, the best", "unknown"), ("", "unknown"), ("none", "unknown"),
    ],
)  # fmt: skip
def test_a_servers_words_for_a_type_are_known(told: str, is_of: str) -> None:
    assert to_type(told) == to_type(is_of)


def test_a_copy_by_its_key_needs_its_description_alone(
    tmp_path: Path, described: CopyDescription
) -> None:
    told = put(tmp_path, "one", described)
    told.with_name("one.gguf").unlink()
    base, calibration = tmp_path / "base.gguf", write(tmp_path / "c.json")
    keyed = Keyed(told, MASTER, tmp_path / "master.key")
    options = {"runtime": "torch", "model": base, "keyed": [keyed]}
    (means,) = open_copies(tmp_path, calibration, **options).get_means(OFFER)
    assert (means.path, means.keyed) == (base, keyed)
    with pytest.raises(RequestError, match="run in torch"):
        open_copies(tmp_path, calibration, **options | {"runtime": "llama"})
    other = Keyed(told, bytes(32), tmp_path / "other.key")
    with pytest.raises(RequestError, match="another master key"):
        open_copies(tmp_path, calibration, **options | {"keyed": [other]})


def test_one_copy_may_be_named_in_place_of_a_folder(
    tmp_path: Path, described: CopyDescription
) -> None:
    copy = put(tmp_path, "one", described).with_name("one.gguf")
    copies = CopiesAtHand(
        None, [write(tmp_path / "c.json")], runtime="llama", threads=1, model=copy
    )
    assert [one.path for one in copies.get_means(OFFER)] == [copy]


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        ([Verdict.CHEAT, Verdict.HONEST], Verdict.HONEST),
        ([Verdict.CHEAT, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE),
        ([Verdict.HONEST], Verdict.HONEST),
        ([Verdict.CHEAT, Verdict.CHEAT], Verdict.CHEAT),
    ],
)
def test_a_cheat_is_one_by_each_of_the_providers_copies(
    verdicts: list[Verdict], shown: Verdict
) -> None:
    """A provider that was given a new copy, and serves the one before, is honest."""
    made: list[bytes] = []

    def audit_each() -> Iterator[Any]:
        for number, verdict in enumerate(verdicts, start=1):
            made.append(b"%d" % number)
            yield SimpleNamespace(judgement=SimpleNamespace(verdict=verdict)), made[-1]

    audited, data = keep_fairest(audit_each())
    assert audited.judgement.verdict is shown
    assert data == (b"1" if shown is Verdict.CHEAT else made[-1])
    assert len(made) == len(verdicts), "none is audited in vain, and none left out"
