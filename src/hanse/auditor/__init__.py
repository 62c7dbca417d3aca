"""The auditor: recomputes answers that were bought, shows what it found, weighs what others found.

A party of the market, as gateway, provider and recorder are: it runs models (`engines`, `models`),
judges by pure rules (`verification`), asks brokers as a buyer does (`sdk`) and the chain for draws,
stakes and challenges. Commands, tables and progress bars are `hanse.cli.auditing`'s and
`hanse.cli.panels`'s; nothing here prints.

    opened_model   a model file, ready to audit with
    model_types    what quantisations are called, and which copies can audit which answers
    openings       a receipt's opening, fetched from its broker
    purchases      one purchase audited, or shown to break its promise; its evidence signed
    replaying      somebody's evidence rerun
    files          evidence and calibrations read, and summed up by provider
    drawing        which recorded receipts the chain's blocks drew
    calibrating/   honest noise measured, thresholds out of it
    watching/      a buyer audits what its gateway bought, by itself
    panels/        challenges at Disputes: brought, sealed, taken to their next step
    reputation/    folders of evidence as reputations, kept fresh in a gateway

Begin with `purchases`, which is one audit from trace to evidence; then `watching/watcher.py`, which
does that for whatever is drawn. Nothing is imported here: a gateway that reads reputations loads
neither numpy nor a model.

Source: docs/decisions/0028-commitments-and-audits.md, 0037-own-audits.md, 0040-auditor.md.
"""
