"""Runs a gateway for `hanse gateway start`."""

import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from hanse.cli.buying.wallet import get_settings
from hanse.cli.memory import set_started_aside
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import keep_traces_of_user
from hanse.gateway import GatewayServer, GatewaySettings, run_gateway
from hanse.sdk import Hanse


def serve(session: Session, options: dict[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is at work. Blocks.

    Raises:
        HanseError: a key, a setting, the chain or the store is not in order.
    """
    network = load_network(session.home)
    gateway = GatewaySettings(
        host=options["host"],
        port=options["port"],
        requests_max=options["requests_max"],
        body_bytes_max=options["body_bytes_max"],
        drain_s=options["drain_s"],
        allowed_origins=tuple(options["allowed_origin"]),
        wallet_key=options["key"],
        access_log=options["access_log"],
    )
    buyer = get_settings(
        session,
        network,
        options["key"],
        signer=options["signer"],
        use_keyring=options["keyring"],
    )
    buyer = replace(buyer, auto_dispute=options["auto_dispute"])
    buyer = keep_traces_of_user(session, options, buyer)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if gateway.access_log:
        logging.getLogger("hanse.gateway").setLevel(logging.INFO)

    def open_client() -> AbstractAsyncContextManager[Hanse]:
        return Hanse.open(buyer)

    def show(_: GatewayServer, port: int) -> None:
        set_started_aside()
        url = f"http://{gateway.host}:{port}/v1"
        document = {"base_url": url, "user": buyer.get_user(), "signer": buyer.signer.address}
        session.output.show(
            document,
            lambda: session.output.fields(
                (
                    ("base URL", url),
                    ("pays with", f"the account of {document['user']}"),
                    ("signed by", document["signer"]),
                )
            ),
        )
        session.output.note("Applications need a key: hanse gateway keys create NAME")
        session.output.note("Ctrl-C finishes the requests at work, then stops.")

    run_gateway(gateway, open_client, session.get_database_path("gateway"), show)
    session.output.note("Stopped; every request at work was finished or cut, and is in the books.")
