"""What the commands of `hanse audit` do: models and records on one side, pure audits on the other.

prompts.py       honest questions of several kinds
serving.py       answers to them by the embedded engine, with their proof
auditors.py      a model file, ready to audit with
calibrating.py   honest noise measured, thresholds written
openings.py      a receipt's opening, fetched from its broker
running.py       one stored purchase audited, its evidence written
files.py         evidence read, rerun and summed up
"""
