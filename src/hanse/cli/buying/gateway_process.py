"""Runs a gateway for `hanse gateway start`."""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import click

from hanse.auditor.reputation.fetching import keep_reputations
from hanse.cli.auditing.places import get_evidence_folder, get_kept_folder
from hanse.cli.budgeting.upkeep import open_kept, with_upkeep
from hanse.cli.buying.gateway_options import find_config, list_unused, make_settings, read_again
from hanse.cli.buying.gateway_running import show_running
from hanse.cli.buying.wallet import get_settings
from hanse.cli.memory import set_started_aside
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.cli.tracing.encryption import keep_traces_of_user
from hanse.gateway import GatewayServer, GatewaySettings, run_gateway
from hanse.gateway.plain import PlainClient, open_plain, read_upstreams
from hanse.gateway.server import OnReady, ReadSettings
from hanse.sdk import Hanse

_log = logging.getLogger("hanse.gateway")


def serve(session: Session, options: dict[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is at work. Blocks.

    Raises:
        HanseError: a key, a setting, the chain or the store is not in order.
    """
    gateway = make_settings(options)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("hanse.gateway.access").setLevel(logging.INFO)  # its setting says whether
    ctx = click.get_current_context()
    config = find_config(ctx)
    read = partial(read_again, ctx, config) if config is not None else None
    with show_running(session.home, config):
        if options["upstream"]:
            _serve_plain(session, gateway, options, read)
        else:
            _serve_market(session, gateway, options, read)


def _serve_market(
    session: Session, gateway: GatewaySettings, options: dict[str, Any], read: ReadSettings | None
) -> None:
    network = load_network(session.home)
    buyer = get_settings(
        session,
        network,
        options["key"],
        signer=options["signer"],
        use_keyring=options["keyring"],
    )
    buyer = replace(buyer, auto_dispute=options["auto_dispute"], is_served=True)
    buyer = keep_traces_of_user(session, options, buyer)
    evidence = options["evidence"]
    if options["audit"]:
        buyer = replace(buyer, kept_answers=get_kept_folder(session))
        evidence = evidence or get_evidence_folder(session)
    buyer = with_upkeep(session, network, options, buyer)
    user, signer = buyer.get_user(), buyer.signer.address
    rows = (("pays with", f"the account of {user}"), ("signed by", signer))

    def open_client() -> AbstractAsyncContextManager[Hanse]:
        opened = open_kept(session, options["key"], buyer)
        if evidence is None:
            return opened
        own = {user, signer}
        return keep_reputations(opened, network.rpc_url, network.deployment, evidence, own)

    facts = {"user": user, "signer": signer}
    show = _get_announcement(session, gateway, facts, rows)
    run_gateway(gateway, open_client, session.get_database_path("gateway"), show, read)
    session.output.note("Stopped; every request at work was finished or cut, and is in the books.")


def _serve_plain(
    session: Session, gateway: GatewaySettings, options: dict[str, Any], read: ReadSettings | None
) -> None:
    upstreams = read_upstreams(options["upstream"], os.environ)
    urls = [upstream.base_url for upstream in upstreams]

    def open_client() -> AbstractAsyncContextManager[PlainClient]:
        return open_plain(upstreams)

    session.output.note("Nothing is paid: limits on requests hold, on tokens and money do not.")
    if idle := list_unused(click.get_current_context()):
        _log.warning("nothing is bought with --upstream, so these change nothing: %s", idle)
    show = _get_announcement(
        session, gateway, {"upstreams": urls}, [("routes to", url) for url in urls]
    )
    run_gateway(gateway, open_client, session.get_database_path("gateway"), show, read)
    session.output.note("Stopped; every request at work was finished or cut.")


def _get_announcement(
    session: Session,
    gateway: GatewaySettings,
    facts: dict[str, Any],
    rows: Sequence[tuple[str, str]],
) -> OnReady:
    def show(_: GatewayServer, port: int) -> None:
        set_started_aside()
        url = f"http://{gateway.host}:{port}/v1"
        session.output.show(
            {"base_url": url, **facts},
            lambda: session.output.fields((("base URL", url), *rows)),
        )
        session.output.note("Applications need a key: hanse gateway keys create NAME")
        session.output.note("Ctrl-C finishes the requests at work, then stops.")

    return show
