"""What a provider's disk, logs and figures show of a prompt and an answer: nothing."""

import asyncio
import logging
import stat

import pytest

from hanse.engines.echo_engine import Fault
from tests.provider.broker_parts import chat_body, selling, until

MARKER = "quetzal-hidden-in-a-prompt"


@pytest.fixture
def log_lines():
    """Everything that anybody logs, at the lowest level."""
    lines = []

    class Keeper(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    keeper, root = Keeper(), logging.getLogger()
    level = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(keeper)
    root.setLevel(level)


async def test_prompts_answers_and_keys_stay_out_of_disk_logs_and_figures(tmp_path, log_lines):
    body, signed = chat_body(f"{MARKER} two three", stream=True), []

    async def send(given=body, **options):
        _, receipts = await caller.fetch_receipts()
        for receipt in receipts:
            caller.acknowledge(receipt)
        signed.append(caller.sign(given))
        return await caller.send(signed[-1], **options)

    async def is_idle():
        return here.broker.in_flight == 0

    async with selling(tmp_path / "broker.db", answer_tokens=40, token_delay_s=0.002) as (
        here,
        caller,
    ):
        assert (await send()).ended
        assert (await send({**body, "stream": False})).status == 200
        await send(stop_after=2)  # the caller leaves amid the answer
        await until(is_idle)
        here.engine.fault = Fault(kind="break", after_tokens=1)
        assert not (await send()).ended
        here.engine.fault = Fault()
        for refused in ({**body, "temperature": MARKER}, {**body, MARKER: 1}):
            assert (await send(refused)).status == 400
        figures = (await caller.get("/metrics")).body.decode()
        files = await asyncio.to_thread(lambda: sorted(tmp_path.iterdir()))
        kept = {path.name: await asyncio.to_thread(path.read_bytes) for path in files}
        modes = [stat.S_IMODE(path.stat().st_mode) for path in files]
    assert "broker.db-wal" in kept
    assert modes == [0o600] * len(files)
    shown = "\n".join(log_lines) + figures
    assert "quetzal" not in shown
    for request in signed:
        assert request.voucher.signature[2:] not in shown
        assert request.header.split()[1] not in shown
        for data in kept.values():
            assert request.answer_key not in data
            assert request.answer_key.hex().encode() not in data
    for data in kept.values():
        assert b"quetzal" not in data
        assert b"chat.completion" not in data
