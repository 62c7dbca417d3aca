"""Runs a recorder for `hanse recorder start`."""

import logging
from typing import Any

from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.recorder import RecorderProcess, RecorderSettings, run_recorder


async def serve(session: Session, options: dict[str, Any]) -> None:
    """Start a recorder from the command's options and stay until it is stopped.

    Raises:
        HanseError: key, chain, database or port is not in order.
    """
    network, name = load_network(session.home), str(options["name"])
    settings = RecorderSettings(
        data_dir=session.get_provider_folder(name),
        rpc_url=network.rpc_url,
        deployment=network.deployment,
        host=options["host"],
        port=options["port"],
        database=session.get_store(name),
        interval_blocks=options["every_blocks"],
    )
    key = session.unlock_key(name, use_keyring=options["keyring"])
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    def show(process: RecorderProcess) -> None:
        document = {
            "recorder": process.recorder.address,
            "url": process.url,
            "interval_blocks": settings.interval_blocks,
            "promise_blocks": settings.get_promise_blocks(),
        }
        session.output.show(
            document,
            lambda: session.output.fields(
                (
                    ("recorder", document["recorder"]),
                    ("serves at", document["url"]),
                    ("commits", f"every {settings.interval_blocks} blocks, if anything matched"),
                )
            ),
        )
        session.output.note("Ctrl-C stops it; what is promised is kept at the next start.")

    await run_recorder(settings, key, on_ready=show)
    session.output.note("Stopped.")
