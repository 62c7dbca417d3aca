"""Audits: was this answer made by one full run of this provider's copy, sampled by its seed?

    coverage.py      which requests are covered by which check, and why others are not
    prefill.py       what an audit needs of whatever runs the model
    sampling.py      the seeded sampler replayed: how far a token lies from its draw
    measuring.py     one prefill, reduced to a few numbers a token
    statistics.py    what an answer's numbers come to
    bounds.py        what quantile of honest noise a sample size carries
    calibration.py   thresholds, as honest noise between two runtimes justifies them
    alignment.py     whether the committed tokens are the answer that was received
    judging.py       the verdict, from the numbers alone: everyone comes to the same one
    answers.py       all of it together: one bought answer, audited
    schedule.py      which recorded receipts are drawn

What it all proves, and what not: `docs/verification/audits.md`.
"""
