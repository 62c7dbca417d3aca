"""The recorder: matches what both sides of each request submit, and commits one root for all.

Run one (what the command line does):

    settings = RecorderSettings(data_dir=..., rpc_url=..., deployment=..., port=8700)
    await run_recorder(settings, key, on_ready=lambda process: print(process.url))

To drive one from a program:

    process = await RecorderProcess.start(settings, key)
    process.url; process.recorder.address
    await process.stop()

A recorder holds no money and need not be believed: what it says is held against the chain by those
it serves (`hanse.settlement.records.watch`). Anybody may run one; several providers share one, so
the network pays for one transaction an interval.

app        paths, error shapes            parties    who may submit, and how much
book       what waits, matches, was committed: durable (entries, nodes, tables)
committer  one commit an interval         metrics    Prometheus
http       bodies and answers             settings   limits of this process
lifecycle  start, stop, loops

Source: `docs/records.md`; `docs/decisions/0014-records.md`.
"""

from hanse.recorder.app import Recorder
from hanse.recorder.lifecycle import RecorderProcess, run_recorder
from hanse.recorder.settings import RecorderLimits, RecorderSettings

__all__ = ["Recorder", "RecorderLimits", "RecorderProcess", "RecorderSettings", "run_recorder"]
