"""What `make` shows while it installs: only what is known."""

from tools.install import BAR_WIDTH, Progress, find_torch


def test_the_bar_begins_when_pip_knows_how_many_and_fills():
    progress = Progress(100.0, installed=7)
    for line in (
        "Obtaining file:///somewhere\n",
        "Collecting aiohttp>=3.14 (from hanse==0.1.0)\n",
        "  Downloading aiohttp-3.14.5.whl (1.7 MB)\n",
        "Requirement already satisfied: idna>=2.0 in ./lib (from yarl)\n",
        "Requirement already satisfied: idna>=2.5 in ./lib (from requests)\n",
        "Collecting uvicorn[standard]>=0.54\n",
    ):
        progress.read(line)
    assert progress.describe(103.4, 7) == "3 packages looked at, 3 s: uvicorn"
    progress.read("Installing collected packages: aiohttp, uvicorn, hanse, yarl\n")
    empty, full = "." * BAR_WIDTH, "#" * BAR_WIDTH
    assert progress.describe(104.0, 7) == f"[{empty}] 0 of 4 packages unpacked, 4 s"
    half = full[: BAR_WIDTH // 2] + empty[BAR_WIDTH // 2 :]
    assert progress.describe(105.0, 9) == f"[{half}] 2 of 4 packages unpacked, 5 s"
    assert progress.describe(109.0, 11) == f"[{full}] 4 of 4 packages unpacked, 9 s"


def test_what_takes_the_place_of_another_does_not_break_the_bar():
    progress = Progress(0.0, installed=7)
    progress.read("Installing collected packages: hanse\n")
    assert progress.describe(1.0, 6).startswith(f"[{'.' * BAR_WIDTH}] 0 of 1")
    assert progress.describe(1.0, 30).startswith(f"[{'#' * BAR_WIDTH}] 1 of 1")


def test_torch_comes_first_where_an_extra_has_it():
    """Also through another extra, as in `dev`; the light extras do without."""
    assert find_torch("models").startswith("torch==")
    assert find_torch("postgres,dev") == find_torch("models")
    assert find_torch("llama,local") == ""
