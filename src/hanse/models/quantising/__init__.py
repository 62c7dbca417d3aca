"""Smaller files of a model, and what they cost.

    files.py    `quantise_file`: llama.cpp's quantiser, in a process of its own
    costs.py    `measure_files`: each file against its source on a text, in numbers
    scoring.py  perplexity and KL of one model, by llama.cpp's logits
    worker.py   the process: a job on standard input, progress and result on standard output
    calling.py  starts one, hands on its progress, and says in words how it ended

llama.cpp ends its process at some faults, and its memory is to be measured: so all of it runs in
children, and the command that asked survives.
"""
