"""Plain routing: OpenAI-compatible servers of one's own behind the gateway, and nothing paid.

    async with open_plain([read_upstream("http://127.0.0.1:8000/v1=llama,qwen")]) as client:
        await serve_gateway(settings, client, keys)

upstreams   which servers there are: URL, models, key
client      a `MarketClient` over them: who is asked, and who rests after a failure
answer      one answer, its bytes untouched
refusals    what an upstream's error means for the application

Answers say `hanse-provider: local` (`local-2` and so on for further servers) and have no receipt.
Source: docs/gateway/plain.md.
"""

from hanse.gateway.plain.client import PlainClient, open_plain
from hanse.gateway.plain.upstreams import Upstream, read_upstream, read_upstreams

__all__ = ["PlainClient", "Upstream", "open_plain", "read_upstream", "read_upstreams"]
