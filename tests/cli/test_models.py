"""`hanse models`: what the commands print and write, and how they refuse."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from hanse.cli.commands.models import models
from hanse.cli.modelling.plots import COLUMNS, Point, draw_svg, draw_text
from hanse.protocol.manifests import decode_manifest
from tests.models.tiny_models import write_tiny_folder

POINTS = [Point("Q8_0", 145.0, 0.005), Point("Q4_0", 92.0, 0.27), Point("Q4_K_M", 105.0, 0.08)]


@pytest.fixture
def folder(tmp_path):
    return write_tiny_folder(tmp_path / "tiny")


def test_a_model_is_imported_and_verified(run, folder, tmp_path):
    target = tmp_path / "tiny.json"
    ran = run("models", "import", str(folder), "-o", str(target), "--source", "made here", "--json")
    assert ran.exit_code == 0
    manifest = decode_manifest(target.read_bytes())
    assert (manifest.source, manifest.root) == ("made here", ran.document["root"])
    arguments = ("models", "verify", str(target), "--folder", str(folder))
    assert run(*arguments, "--root", manifest.root, "--json").document["verified"] is True
    assert run(*arguments, "--root", "0x" + "11" * 32).exit_code == 8
    (folder / "config.json").write_text("{}")
    ran = run(*arguments, "--json")
    assert (ran.exit_code, ran.error["code"]) == (8, "model_invalid")


def test_without_a_file_the_manifest_is_what_is_printed(run, folder):
    printed = run("models", "import", str(folder)).stdout.strip()
    assert decode_manifest(printed.encode()).model == "tiny"


def test_a_pickle_is_refused_with_its_name(run, folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")
    ran = run("models", "import", str(folder), "--json")
    assert ran.exit_code == 8
    assert "pytorch_model.bin" in ran.error["message"]


def test_a_model_is_shown(run, folder):
    document = run("models", "inspect", str(folder), "--tensors", "--json").document
    assert (document["architecture"], document["shape"]["layers"]) == ("LlamaForCausalLM", 2)
    assert document["bits_per_weight"] == 32
    assert len(document["tensors"]) == 21
    shown = run("models", "inspect", str(folder)).stdout
    assert "apache-2.0" in shown
    assert "layers 2" in shown


def test_the_packaged_model_has_a_name_of_its_own(run):
    document = run("models", "inspect", "packaged", "--json").document
    assert (document["quantisation"], document["shape"]["width"]) == ("Q4_1", 576)


def test_smaller_files_come_with_manifests_costs_and_a_plot(run, folder, tmp_path):
    out, plot = tmp_path / "out", tmp_path / "plot.svg"
    command = ("models", "quantise", str(folder), "-t", "Q8_0", "-t", "Q4_0", "-o", str(out))
    ran = run(*command, "--tokens", "128", "--threads", "1", "--plot", str(plot), "--json")
    assert ran.exit_code == 0, ran.stderr
    names = [f"tiny.{name}" for name in ("F16", "Q8_0", "Q4_0")]
    expected = sorted(f"{name}.{end}" for name in names for end in ("gguf", "json"))
    assert sorted(path.name for path in out.iterdir()) == expected
    costs = ran.document["costs"]
    assert [cost["quantisation"] for cost in costs] == ["F16", "Q8_0", "Q4_0"]
    assert 0 == costs[0]["kl"] < costs[1]["kl"] < costs[2]["kl"]
    manifest = decode_manifest((out / "tiny.Q4_0.json").read_bytes())
    assert manifest.derived_from == ran.document["source_root"]
    assert run("models", "verify", str(out / "tiny.Q4_0.json")).exit_code == 0
    ElementTree.fromstring(plot.read_text())
    again = run(*command, "--json")
    assert (again.exit_code, again.error["code"]) == (2, "usage")
    difference = run(
        "models", "diff", str(out / "tiny.F16.gguf"), str(out / "tiny.Q4_0.gguf"), "--json"
    ).document
    assert difference["same"] is False
    assert {value["key"] for value in difference["metadata"]} >= {"general.file_type"}
    assert 0.02 < max(t["relative_error"] for t in difference["changed_tensors"]) < 0.2


def test_the_same_model_twice_differs_in_nothing(run, folder):
    ran = run("models", "diff", str(folder), str(folder))
    assert (ran.exit_code, ran.stdout.startswith("Nothing differs: 21 tensors")) == (0, True)


def test_the_table_has_the_source_and_every_type(run, folder, tmp_path):
    ran = run("models", "quantise", str(folder), "-t", "Q8_0", "-o", str(tmp_path), "--tokens",
              "128", "--threads", "1")  # fmt: skip
    assert "F16 (source)" in ran.stdout
    assert "* Q8_0" in ran.stdout or "Q8_0 *" in ran.stdout


def test_a_type_that_cannot_be_made_costs_no_work(run, folder, tmp_path):
    ran = run("models", "quantise", str(folder), "-t", "Q9", "-o", str(tmp_path / "o"), "--json")
    assert (ran.exit_code, ran.error["code"]) == (2, "usage")
    assert not (tmp_path / "o").exists()


def test_each_line_of_help_is_the_commands_own():
    for name, (_, line) in models.lazy.items():
        command = models.get_command(None, name)
        assert command is not None
        assert command.get_short_help_str(limit=100) == line


def test_a_plot_in_text_keeps_every_label_and_its_place():
    text = draw_text(POINTS)
    for point in POINTS:
        assert point.label in text
    rows = {
        p.label: next(i for i, r in enumerate(text.splitlines()) if p.label in r) for p in POINTS
    }
    assert rows["Q4_0"] < rows["Q4_K_M"] < rows["Q8_0"]
    assert max(map(len, text.splitlines())) <= COLUMNS + 8


def test_points_on_one_place_are_both_read():
    text = draw_text([Point("first", 10, 0.1), Point("second", 10, 0.1)])
    assert "first" in text
    assert "second" in text


def test_a_picture_is_well_formed_and_escapes_names():
    picture = draw_svg(POINTS, "a <b> & c")
    root = ElementTree.fromstring(picture)
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert "a <b> & c" in texts
    assert {point.label for point in POINTS} <= set(texts)
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3
    places = sorted((float(c.get("cx", "0")), float(c.get("cy", "0"))) for c in circles)
    assert [y for _, y in places] == sorted(y for _, y in places), "smaller files lost more"


def test_a_manifest_is_one_line_of_json(run, folder, tmp_path):
    run("models", "import", str(folder), "-o", str(tmp_path / "m.json"))
    lines = (tmp_path / "m.json").read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["hanse_manifest"] == 1
