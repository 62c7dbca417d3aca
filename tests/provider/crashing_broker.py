"""A broker in a process of its own that kills itself at a named step. Run by test_crashes.

    HANSE_FAILPOINT=frame:3 python -m tests.provider.crashing_broker DATABASE [CHAIN_JSON]

Without a chain: echo engine, a static view. With CHAIN_JSON (written by the test: keys, deployment)
the whole process. Prints its URL as one JSON line, then serves until it dies or gets SIGTERM; with
a chain, SIGUSR1 makes it settle.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from hanse.chain import Deployment, Key
from hanse.engines import open_engine
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service
from tests.provider.broker_parts import FUNDS, PRICES, QUICK_LEASE, run_broker_here


class KillAt:
    """SIGKILL to oneself when a step is reached for the n-th time: no handler, no clean-up."""

    def __init__(self, spec: str) -> None:
        name, _, count = spec.partition(":")
        self.name = name
        self.left = int(count or 1)

    def __call__(self, name: str) -> None:
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def serve_alone(database: str, failpoint: KillAt) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    delay = float(os.environ.get("TOKEN_DELAY_S", "0"))
    funds = int(os.environ.get("FUNDS", FUNDS))
    async with run_broker_here(
        database, failpoint=failpoint, funds=funds, token_delay_s=delay
    ) as here:
        print(json.dumps({"url": here.url}), flush=True)
        await stop.wait()


async def serve_on_chain(folder: str, chain: dict[str, str], failpoint: KillAt) -> None:
    stop, settle = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, settle.set)
    settings = BrokerSettings(
        provider=Key(bytes.fromhex(chain["owner"])).address,
        data_dir=Path(folder),
        rpc_url=chain["url"],
        deployment=msgspec.json.decode(chain["deployment"], type=Deployment),
        stake=int(chain["stake"]),
        settle_interval_s=0,
        endpoints=("http://broker.test",),
        database=chain.get("database", ""),
        lease=QUICK_LEASE,
    )
    keys = BrokerKeys(Key(bytes.fromhex(chain["receipt"])), Key(bytes.fromhex(chain["owner"])))
    services = [Service(1, open_engine("echo", {}), PRICES)]
    process = await BrokerProcess.start(settings, keys, services, failpoint=failpoint)
    print(json.dumps({"url": process.url}), flush=True)

    async def settle_when_asked() -> None:
        await settle.wait()
        batches = await process.settle_now()
        print(json.dumps({"paid": sum(batch.paid for batch in batches)}), flush=True)

    settling = asyncio.create_task(settle_when_asked())
    await stop.wait()
    settling.cancel()
    await process.stop()


def main() -> None:
    failpoint = KillAt(os.environ.get("HANSE_FAILPOINT", ""))
    if len(sys.argv) > 2:
        chain = json.loads(Path(sys.argv[2]).read_text())
        asyncio.run(serve_on_chain(sys.argv[1], chain, failpoint))
    else:
        asyncio.run(serve_alone(sys.argv[1], failpoint))


if __name__ == "__main__":
    main()
