"""The whole of `make bench-audit QUICK=0`: many thousand honest answers, and every cheat.

questions.py     what is asked: calibration and held-out questions share no subject
plan.py          which answers are served and audited, by which runtimes, under which loads
torch_side.py    torch, many answers at once: a prover and an auditor
llama_side.py    llama.cpp, many answers at once: an auditor
serving.py       whoever serves: the embedded engine, torch, a cheat
records.py       each audited answer in a line of a file, so that a stopped run goes on
lane.py          one process: its share of the plan, serving and auditing in turn
again.py         honest answers audited by a third pair of runtimes; the shipped thresholds
reading.py       records judged by the product's own code
signed.py        rung V0: cheats that signatures show
kept.py          bytes that a broker keeps of them
groups.py        answers put together to so many tokens
report.py        the lines that the issue asks for
tables.py        the documentation's tables from them
"""
