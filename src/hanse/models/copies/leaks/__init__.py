"""What a copy gives away to whoever has the base, and how its rounding names a leaker.

aligning.py        the change of basis, fitted without any key
attacking.py       all of it undone: `hanse models attack`
tracing.py         whose copy a leaked file is: `hanse models trace`
answer_tracing.py  whose copy answers behind an endpoint
spelling.py        tokens of endpoints that tell them by text
"""
