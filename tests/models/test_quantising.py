"""Smaller files: made whole or not at all, and held against their source with the right numbers."""

import math

import numpy as np
import pytest

from hanse.engines.child_process import make_environment as make_environment_of_engine
from hanse.engines.gguf_files import find_packaged_model
from hanse.models.comparing import compare
from hanse.models.converting import convert_folder
from hanse.models.gguf_header import read_gguf_header
from hanse.models.opening import open_model
from hanse.models.quantising.calling import NO_BACKTRACE, OPENMP, make_environment, run_job
from hanse.models.quantising.costs import OWN_TEXT, measure_files, read_text
from hanse.models.quantising.files import OFFERED, find_type, name_target, quantise_file
from hanse.models.quantising.scoring import CONTEXT_TOKENS, PIECE_TOKENS, LlamaRun
from hanse.models.quantising.worker import ScoreJob
from hanse.protocol.errors import RequestError, VerificationError
from tests.models.tiny_models import write_tiny_folder

TEXT = OWN_TEXT.read_text()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny Llama in F32, as GGUF."""
    folder = tmp_path_factory.mktemp("tiny")
    convert_folder(write_tiny_folder(folder / "tiny"), folder / "tiny.F32.gguf", dtype="F32")
    return folder / "tiny.F32.gguf"


@pytest.mark.parametrize("name", OFFERED)
def test_every_type_that_is_offered_can_be_made(tiny, tmp_path, name):
    target = tmp_path / name_target(tiny, name)
    said = []
    quantise_file(tiny, target, name, threads=1, progress=lambda text, _: said.append(text))
    header = read_gguf_header(target)
    assert header.weights == read_gguf_header(tiny).weights
    assert header.size_bytes <= read_gguf_header(tiny).size_bytes
    assert set(said) == {f"quantising to {name}"}
    assert [path.name for path in tmp_path.iterdir()] == [f"tiny.{name}.gguf"]


def test_the_same_type_twice_is_the_same_bytes(tiny, tmp_path):
    for name, threads in (("a", 1), ("b", 2)):
        quantise_file(tiny, tmp_path / name, "Q4_0", threads=threads)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_split_model_is_one_model(tiny, tmp_path):
    """Written in parts by the gguf package: the same tensors, and the same smaller file."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(str(tiny))
    writer = GGUFWriter(str(tmp_path / "parts.gguf"), "llama", split_max_tensors=9)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = tmp_path / "parts-00001-of-00003.gguf"
    assert not compare(open_model(tiny)[1], open_model(first)[1]).changed
    quantise_file(first, tmp_path / "small.gguf", "Q8_0", threads=1)
    quantise_file(tiny, tmp_path / "other.gguf", "Q8_0", threads=1)
    found = compare(open_model(tmp_path / "small.gguf")[1], open_model(tmp_path / "other.gguf")[1])
    assert (found.changed, found.only_first, found.only_second) == ((), (), ())


def test_errors_grow_as_bits_shrink(tiny, tmp_path):
    source = open_model(tiny)[1]
    errors = []
    for name in ("Q8_0", "Q5_0", "Q4_0"):
        quantise_file(tiny, tmp_path / f"{name}.gguf", name, threads=1)
        found = compare(source, open_model(tmp_path / f"{name}.gguf")[1])
        by_name = {tensor.name: tensor.relative_error for tensor in found.changed}
        errors.append(by_name["blk.0.ffn_up.weight"])
        assert "blk.0.attn_norm.weight" not in by_name
    assert 0.001 < errors[0] < errors[1] < errors[2] < 0.2


def test_a_file_that_is_there_is_not_written_over(tiny, tmp_path):
    target = tmp_path / "kept.gguf"
    target.write_bytes(b"kept")
    with pytest.raises(RequestError, match="there already"):
        quantise_file(tiny, target, "Q8_0", threads=1)
    assert target.read_bytes() == b"kept"


def test_a_broken_source_is_refused_and_leaves_nothing(tiny, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny.read_bytes()[:-100])
    with pytest.raises(VerificationError, match="cut off"):
        quantise_file(broken, tmp_path / "target.gguf", "Q8_0", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def test_what_llama_cpp_refuses_is_said_and_leaves_nothing(tiny, tmp_path):
    """A valid GGUF file of an architecture that is none."""
    source = tmp_path / "odd.gguf"
    source.write_bytes(tiny.read_bytes().replace(b"llama", b"lhama"))
    read_gguf_header(source)
    with pytest.raises(RequestError, match=r"llama\.cpp"):
        quantise_file(source, tmp_path / "target.gguf", "Q8_0", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.gguf"]


def test_names_of_types_and_files():
    assert find_type("q4_k") == "Q4_K_M"
    assert find_type("q8_0") == "Q8_0"
    with pytest.raises(RequestError, match="Q9"):
        find_type("Q9")
    from pathlib import Path

    assert name_target(Path("a.Q8_0.gguf"), "Q4_0") == "a.Q4_0.gguf"
    assert name_target(Path("v1.5.gguf"), "Q4_0") == "v1.5.Q4_0.gguf"
    assert name_target(Path("a.F16-00001-of-00003.gguf"), "Q4_0") == "a.Q4_0.gguf"
    assert name_target(Path("folder"), "F16") == "folder.F16.gguf"


def test_perplexity_and_kl_are_those_of_their_definition(tiny, tmp_path):
    """Against the sums written out, over the logits of both models."""
    small = tmp_path / "small.gguf"
    quantise_file(tiny, small, "Q4_0", threads=1)
    source, cost = measure_files([tiny, small], text=TEXT, tokens_max=600, threads=1)
    surprises, divergences, same = [], [], []
    with LlamaRun(tiny, 1) as one, LlamaRun(small, 1) as other:
        tokens = one.tokenise(TEXT)[:600]
        for at in range(0, 600, PIECE_TOKENS):
            piece = tokens[at : at + PIECE_TOKENS]
            one.read(piece)
            other.read(piece)
            for place in range(CONTEXT_TOKENS - 1, len(piece) - 1):
                p, q = (np.exp(run.get_logits(place).astype(float)) for run in (one, other))
                p, q = p / p.sum(), q / q.sum()
                surprises.append(-math.log(q[piece[place + 1]]))
                divergences.append(float((p * np.log(p / q)).sum()))
                same.append(p.argmax() == q.argmax())
    assert cost.score.tokens == source.score.tokens == len(surprises)
    assert cost.score.perplexity == pytest.approx(math.exp(np.mean(surprises)), rel=1e-3)
    assert cost.score.kl == pytest.approx(np.mean(divergences), rel=1e-2)
    assert cost.score.same_top == pytest.approx(np.mean(same), abs=0.01)
    assert cost.score.kl_error > 0
    assert (source.score.kl, source.score.same_top) == (0, 1)
    assert (source.quantisation, cost.quantisation) == ("F32", "Q4_0")


def test_a_piece_begins_as_the_model_wants_it(tiny, tmp_path):
    """Gemma's perplexity is 139 without that token and 35 with it (measured on 96 tokens)."""
    folder = write_tiny_folder(tmp_path / "begun")
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", '{"add_bos_token": true, ', 1))
    convert_folder(folder, tmp_path / "begun.gguf", dtype="F32")
    with LlamaRun(tmp_path / "begun.gguf", 1) as begun, LlamaRun(tiny, 1) as plain:
        assert (begun.beginning, plain.beginning) == ([0], [])
    (cost,) = measure_files([tmp_path / "begun.gguf"], text=TEXT, tokens_max=128, threads=1)
    assert cost.score.tokens == 128 + 1 - CONTEXT_TOKENS


def test_a_model_with_another_vocabulary_is_no_candidate(tiny, tmp_path):
    folder = write_tiny_folder(tmp_path / "wider", vocab_size=352)
    convert_folder(folder, tmp_path / "wider.gguf", dtype="F32")
    with pytest.raises(RequestError, match="vocabulary"):
        measure_files([tiny, tmp_path / "wider.gguf"], text=TEXT, tokens_max=128, threads=1)


def test_a_text_that_is_too_short_is_said_so(tiny, tmp_path):
    with pytest.raises(RequestError, match="tokens"):
        measure_files([tiny], text="too short", tokens_max=1_024, threads=1)


def test_a_process_that_dies_is_an_error_and_not_the_end(tiny, tmp_path):
    """Where llama.cpp would abort, only its process does: here it finds no model at all."""
    job = ScoreJob(
        model=str(tmp_path / "absent.gguf"), text=TEXT, tokens_max=128, threads=1,
        reference=str(tmp_path / "reference"), role="source",
    )  # fmt: skip
    with pytest.raises(RequestError) as caught:
        run_job(job)
    assert caught.value.code == "unprocessable"


def test_no_process_of_llama_cpp_gets_a_password():
    given = make_environment({"HANSE_PASSWORD": "secret", "PATH": "/bin"})
    assert given == {"PATH": "/bin", **OPENMP, **NO_BACKTRACE}


def test_an_operator_says_how_llama_cpps_threads_wait():
    """The rule of the engines' processes, which this is the twin of."""
    for own in ({}, {"GOMP_SPINCOUNT": "20"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        assert make_environment(own) == NO_BACKTRACE | make_environment_of_engine(own)
    assert make_environment({"GGML_NO_BACKTRACE": "0"})["GGML_NO_BACKTRACE"] == "0"


def test_texts_from_files_are_bounded(tmp_path):
    assert read_text(None) == TEXT
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="UTF-8"):
        read_text(tmp_path / "bytes")
    with pytest.raises(RequestError, match="cannot be read"):
        read_text(tmp_path / "absent")


@pytest.mark.slow
def test_what_the_packaged_model_loses_as_q4_0(tmp_path):
    """The real model: measured at .27 nats over 448 tokens, so .1 to .6 over these 96."""
    target = tmp_path / "q4_0.gguf"
    quantise_file(find_packaged_model(), target, "Q4_0", threads=2)
    files = [find_packaged_model(), target]
    source, cost = measure_files(files, text=TEXT, tokens_max=128, threads=2)
    assert 0.1 < cost.score.kl < 0.6
    assert 0.5 < cost.score.same_top < 0.95
    assert source.score.perplexity < 100
    assert cost.size_bytes < source.size_bytes
    assert cost.score.memory_bytes > cost.size_bytes
    assert cost.score.prompt_tokens_per_s > cost.score.answer_tokens_per_s > 0
