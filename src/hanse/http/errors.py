"""What goes wrong with a call, by what the caller may conclude from it."""


class HttpConnectError(OSError):
    """No connection, so nothing was sent. The cause says why."""


class HttpBrokenError(OSError):
    """The exchange broke off; the other side may have done what was asked."""


class HttpTimeoutError(HttpBrokenError):
    """The other side was silent, or took in all, longer than it may."""
