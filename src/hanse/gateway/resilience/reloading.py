"""Reading the settings anew while the gateway serves.

SIGHUP asks for it. What is wrong with the new settings is logged and changes nothing. Requests at
work keep what they began with, except where a limit is looked at again anyway (places, waits).
"""

import logging
from collections.abc import Callable

import msgspec

from hanse.gateway.settings import GatewaySettings
from hanse.protocol.errors import HanseError

_log = logging.getLogger("hanse.gateway")

AT_START_ONLY = (
    "host",
    "port",
    "shared_port",
    "connections_max",
    "keep_alive_s",
    "fallback_url",
    "wallet_key",
    "keys_refresh_s",
    "money_look_s",
    "telemetry_url",
    "telemetry_share",
    "telemetry_to_providers",
)
"""Settings that sockets, clients and loops took when the gateway started."""


def reload(
    read: Callable[[], GatewaySettings],
    old: GatewaySettings,
    apply: Callable[[GatewaySettings], None],
) -> GatewaySettings:
    """Apply what `read` gives; the settings that are in force afterwards.

    Args:
        read: reads the settings; raises a HanseError for what is wrong with them.
        old: those in force.
        apply: puts new ones in force.
    """
    try:
        new = read()
    except HanseError as error:
        _log.error("the settings stay as they are: %s", error.message)
        return old
    kept = {name: getattr(old, name) for name in AT_START_ONLY}
    late = [name for name in AT_START_ONLY if getattr(new, name) != kept[name]]
    if late:
        _log.warning("these take a restart, and stay as they are: %s", ", ".join(late))
    new = msgspec.structs.replace(new, **kept)
    apply(new)
    names = (field.name for field in msgspec.structs.fields(new))
    changed = [name for name in names if getattr(new, name) != getattr(old, name)]
    _log.warning("settings read anew; changed: %s", ", ".join(changed) or "none")
    return new
