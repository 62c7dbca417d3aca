"""`hanse models rebase`, `attack` and `trace`: what they write, print and refuse."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from click.testing import CliRunner

from hanse.cli.main import hanse
from hanse.models.converting import convert_folder
from hanse.models.copies import read_copy_description
from hanse.protocol.manifests import decode_manifest
from tests.models.tiny_models import write_tiny_folder
from tests.verification.audits.bought_answers import OFFER, SERVED_NOISE, calibrate
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import make_evidence

PROVIDER, OTHER = "0x" + "aa" * 20, "0x" + "bb" * 20


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_tiny_folder(folder / "tiny", hidden_size=128, intermediate_size=192)
    convert_folder(folder / "tiny", folder / "base.gguf", None, "F32")
    return folder / "base.gguf"


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """A folder with two providers' copies and their master key."""
    folder = tmp_path_factory.mktemp("made")
    master, common = str(folder / "master.key"), ["models", "rebase", str(base), "--json"]
    for name, *chosen in (
        ("first.gguf", "--provider", PROVIDER, "--new-master", master),
        ("second.gguf", "--provider", OTHER, "--master", master),
    ):
        ran = CliRunner().invoke(hanse, [*common, *chosen, "-o", str(folder / name)])
        assert ran.exit_code == 0, ran.stderr
    return folder


@pytest.fixture
def copies(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copies")


def test_a_copy_comes_with_description_and_manifest(run, base, copies):
    description = read_copy_description(copies / "first.gguf")
    manifest = decode_manifest((copies / "first.json").read_bytes())
    root = run("models", "import", str(base), "--json").document["root"]
    assert (description.provider, description.quantisation) == (PROVIDER, "Q8_0")
    assert description.base_root == manifest.derived_from == root
    assert (copies / "master.key").stat().st_mode & 0o077 == 0
    master = (copies / "master.key").read_text().strip()
    written = [path for path in copies.iterdir() if path.suffix == ".json"]
    assert len(written) == 4
    assert not any(master in path.read_text() for path in written)


def test_a_copy_for_vllm_is_a_folder(run, base, copies):
    source, target = base.parent / "tiny", copies / "for.vllm"
    common = ("models", "rebase", str(source), "--provider", PROVIDER)
    made = run(*common, "--master", f"{copies}/master.key", "--folder", "-o", str(target))
    assert "not lifted: vLLM tells their logits by number" in made.stdout
    description = read_copy_description(target)
    assert (description.quantisation, description.lift) == ("BF16", 0)
    assert decode_manifest((copies / "for.vllm.json").read_bytes()).derived_from == (
        description.base_root
    )
    error = run(*common, "--master", f"{copies}/master.key", "--folder", "-t", "Q4_0", "--json",
                "-o", str(copies / "other")).error  # fmt: skip
    assert error["code"] == "usage"


def test_the_lift_is_checked_on_a_text_and_told(run, base, copies):
    margin = read_copy_description(copies / "first.gguf").lift_margin
    assert margin.positions >= 512
    assert 0 < margin.smallest < margin.largest < 70
    common = (
        "models",
        "rebase",
        str(base),
        "--provider",
        OTHER,
        "--master",
        f"{copies}/master.key",
    )
    new = ("-o", str(copies / "new.gguf"))
    before = sorted(copies.iterdir())
    error = run(*common, *new, "--lift", "2", "--json").error
    assert error["code"] == "unprocessable"
    assert sorted(copies.iterdir()) == before
    enough = re.search(r"--lift (\d+) would do", error["message"])[1]
    told = run(*common, *new, "--lift", enough).stdout
    assert f"lifted by {enough}, " in " ".join(told.split())
    (copies / "new.gguf").unlink()
    without = run(*common, *new, "--lift", "0").stdout
    assert "without a proof" in " ".join(without.split())


def test_a_folder_that_is_not_there_is_named_before_a_key_is_drawn(run, base, tmp_path):
    wanted, key = tmp_path / "none" / "copy.gguf", tmp_path / "new.key"
    error = run("models", "rebase", str(base), "--provider", PROVIDER, "--new-master", str(key),
                "-o", str(wanted), "--json").error  # fmt: skip
    assert (error["code"], str(wanted.parent) in error["message"]) == ("usage", True)
    assert not key.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--provider", "0x12", "--new-master", "{folder}/new.key"), "invalid_request"),
        (("--provider", PROVIDER), "usage"),
        (("--provider", PROVIDER, "--master", "{folder}/none.key"), "not_found"),
        (("--provider", PROVIDER, "--new-master", "{folder}/master.key"), "usage"),
        (("--provider", PROVIDER, "--master", "{folder}/first.json"), "keystore_permissions"),
        (("--provider", PROVIDER, "--master", "{folder}/master.key", "-t", "Q9"), "usage"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(run, base, copies, arguments, code):
    (copies / "first.json").chmod(0o644)
    before = sorted(copies.iterdir())
    filled = [argument.format(folder=copies) for argument in arguments]
    ran = run("models", "rebase", str(base), *filled, "-o", str(copies / "new.gguf"), "--json")
    assert (ran.exit_code != 0, ran.error["code"]) == (True, code)
    assert sorted(copies.iterdir()) == before


def test_the_attack_prints_what_it_recovers(run, base, copies):
    arguments = ("models", "attack", str(copies / "first.gguf"), "--base", str(base))
    document = run(*arguments, "--json").document
    assert (document["canaries_found"], document["hidden_matched"]) == (16, 1.0)
    assert "16 found" in run(*arguments).stdout
    ran = run("models", "attack", str(base), "--base", str(copies / "first.gguf"), "--json")
    assert ran.error["code"] == "model_unsupported"


def test_a_leaked_file_names_its_provider(run, base, copies, tmp_path):
    leaked = (copies / "second.gguf").rename(tmp_path / "leaked.gguf")
    arguments = ("models", "trace", str(leaked), "--base", str(base), "--copies", str(copies))
    master = ("--master", str(copies / "master.key"))
    document = run(*arguments, *master, "--json").document
    assert document["named"] == [OTHER]
    assert [row["provider"] for row in document["candidates"]] == [OTHER, PROVIDER]
    assert run(*arguments, "--json").error["code"] == "usage"
    (copies / "second.gguf.copy.json").unlink()
    ran = run(*arguments, *master)
    assert "Nobody is named" in ran.stderr


class Server(BaseHTTPRequestHandler):
    """An endpoint that lists what it was given to list."""

    answer = b""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_and_compared(run, base, copies, endpoint):
    listed = [{"id": token, "logprob": -1.0 - token / 7} for token in range(20)]
    content = [{"id": 5, "top_logprobs": listed}] * 8
    Server.answer = json.dumps({"choices": [{"logprobs": {"content": content}}]}).encode()
    arguments = ("models", "trace", "--endpoint", endpoint, "--base", str(base))
    document = run(*arguments, "--copies", str(copies), "--json").document
    assert document["named"] == []  # what it listed has nothing to do with any copy
    assert len(document["candidates"]) == 2
    Server.answer = b'{"choices": []}'
    ran = run(*arguments, "--copies", str(copies), "--json")
    assert ran.error["code"] == "response_malformed"


def test_evidence_is_rerun_with_the_plain_model_and_the_copy_s_key(run, base, copies, tmp_path):
    """The plain model alone has no fingerprints to compare; with the key it has the copy's."""
    master, copy = copies / "master.key", tmp_path / "toy.gguf"
    made = run("models", "rebase", str(base), "--master", str(master), "--provider",
               OFFER.provider, "-o", str(copy), "--json")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    root = read_copy_description(copy).base_root
    offer = msgspec.structs.replace(OFFER, manifest_root=root)
    file, elsewhere = tmp_path / "evidence.json", tmp_path / "elsewhere.json"
    served = ToyModel(noise=SERVED_NOISE)
    file.write_bytes(make_evidence(served, calibrate(), offer=offer))
    elsewhere.write_bytes(make_evidence(served, calibrate()))
    arguments = ("audit", "replay", str(file), "--model", str(base), "--runtime", "torch",
                 "--threads", "1", "--json")  # fmt: skip
    bare = run(*arguments)
    assert bare.stdout, bare.stderr
    assert bare.document["replay"]["distance_ppm"] is None, bare.stderr
    by_key = ("--copy", f"{copy}.copy.json", "--master", str(master))
    keyed = run(*arguments, *by_key)
    assert keyed.document["replay"]["distance_ppm"] > 0, "they are another model's, and compared"
    # an auditor that votes by another base or copy condemns an honest provider
    other = shutil.copy(base, tmp_path / "other.gguf")
    swapped = [str(other) if part == str(base) else part for part in arguments]
    assert "was made of" in run(*swapped, *by_key).error["message"]
    swapped = [str(elsewhere) if part == str(file) else part for part in arguments]
    assert "offered was" in run(*swapped, *by_key).error["message"]
