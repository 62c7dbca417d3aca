"""A provider of a local network that kills itself at a named step. Run by `Market.start_crashing`.

    python -m tests.network.crashing_provider HOME NAME MODEL OUTPUT_PRICE PORT FAILPOINT

The same broker over the same folder, keys and port as `hanse provider start --name NAME`, with the
failpoints that the command does not offer. `hanse settle` reaches it as it reaches the command.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from hanse.cli.control import hold_folder, serve_control
from hanse.cli.network import load_network
from hanse.cli.selling.settlements import to_document
from hanse.cli.session import Session
from hanse.engines import open_engine
from hanse.protocol.messages import Prices
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service
from tests.network.market import TOKEN_DELAY_S, TOKENS
from tests.provider.crashing_broker import KillAt


async def serve(home: Path, name: str, model: str, output_price: str, port: int, at: str) -> None:
    session, network = Session(home=home), load_network(home)
    folder = session.get_provider_folder(name)
    settings = BrokerSettings(
        provider=session.get_key_address(name),
        data_dir=folder,
        rpc_url=network.rpc_url,
        deployment=network.deployment,
        port=port,
        settle_interval_s=0,
    )
    price = network.units.parse("100")
    engine = open_engine("echo", {"token_delay_s": TOKEN_DELAY_S, "answer_tokens": TOKENS})
    service = Service(1, engine, Prices(price, price, network.units.parse(output_price)), model)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with hold_folder(folder):
        keys = BrokerKeys(receipt=session.unlock_key(f"{name}-receipt"))
        process = await BrokerProcess.start(settings, keys, [service], failpoint=KillAt(at))

        async def answer(question: dict[str, Any]) -> dict[str, Any]:
            assert question["do"] == "settle"
            return to_document(await process.settle_now())

        async with serve_control(folder, answer):
            await stop.wait()
        await process.stop()


if __name__ == "__main__":
    home, name, model, output_price, port, at = sys.argv[1:]
    asyncio.run(serve(Path(home), name, model, output_price, int(port), at))
