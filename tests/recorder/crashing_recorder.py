"""A recorder in a process of its own that kills itself at a named step. Run by test_crashes.

    HANSE_FAILPOINT=commit_enqueued:1 python -m tests.recorder.crashing_recorder FOLDER CHAIN_JSON

Prints its URL as one JSON line, then serves until it dies or gets SIGTERM.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from hanse.chain import Deployment, Key
from hanse.recorder import RecorderProcess, RecorderSettings
from tests.provider.crashing_broker import KillAt
from tests.recorder.record_parts import INTERVAL_BLOCKS


async def serve(folder: str, chain: dict[str, str], failpoint: KillAt) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = RecorderSettings(
        data_dir=Path(folder),
        rpc_url=chain["url"],
        deployment=msgspec.json.decode(chain["deployment"], type=Deployment),
        port=int(chain["port"]),
        interval_blocks=INTERVAL_BLOCKS,
        poll_interval_s=0.05,
    )
    key = Key(bytes.fromhex(chain["key"]))
    process = await RecorderProcess.start(settings, key, failpoint=failpoint)
    print(json.dumps({"url": process.url}), flush=True)
    await stop.wait()
    await process.stop()


if __name__ == "__main__":
    asyncio.run(
        serve(sys.argv[1], json.loads(sys.argv[2]), KillAt(os.environ.get("HANSE_FAILPOINT", "")))
    )
