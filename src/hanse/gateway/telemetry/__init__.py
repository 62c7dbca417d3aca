"""What can be seen of a gateway at work, and never what was asked or answered.

times      histograms of stages, cheap to add to
record     what is known of one request once it has ended
observer   takes each request's record to metrics, access log, spans and the live view
tally      requests, fees and times by provider and model, and the newest requests
tracing    OpenTelemetry spans, off unless a setting names a collector
status     the document of `GET /hanse/v1/status`, which `hanse top` shows

Source: docs/gateway/seen.md.
"""
