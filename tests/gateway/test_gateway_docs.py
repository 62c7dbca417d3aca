"""The how-to page: its programs run as they are, and its tables say what the code says."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from hanse.gateway import GatewaySettings
from hanse.gateway.bodies import Body
from hanse.gateway.operations import OPERATIONS
from hanse.protocol.errors import ERROR_TABLE
from hanse.protocol.wire import OPERATIONS_BY_PATH
from tests.gateway.gateway_parts import CHUNK_MODEL, MemoryMarket, run_gateway_here
from tests.gateway.openai_js import CACHE, install

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "use-openai-sdk.md").read_text()


def get_program(language: str, base_url: str, key: str) -> str:
    [program] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert f"http://127.0.0.1:{GatewaySettings().port}/v1" in program
    for old, new in (
        (f"http://127.0.0.1:{GatewaySettings().port}/v1", base_url),
        ("hgw_...", key),
        ("smollm2-135m-instruct", CHUNK_MODEL),
    ):
        program = program.replace(old, new)
    return program


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CACHE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_the_programs_run_as_they_are(language):
    node = await asyncio.to_thread(install)
    async with run_gateway_here(MemoryMarket()) as gateway:
        program = get_program(language, gateway.base_url, gateway.key)
        if language == "python":
            assert await run(sys.executable, "-c", program) == "w0 w1 w2 w3 w4 "
        else:
            out = await run(node, "--input-type=module", "--eval", program)
            assert out == "w0 w1 w2\n"


def test_the_codes_have_the_statuses_that_the_page_says():
    rows = re.findall(r"^\| (\d{3}) `(\w+)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for status, code in rows:
        assert ERROR_TABLE[code].status == int(status)


def test_every_path_that_can_be_bought_is_taken():
    taken = {operation.path for operation in OPERATIONS if operation.body in Body.__args__}
    assert taken == set(OPERATIONS_BY_PATH)
