"""Asking another provider for the rest of an answer, and joining it to what was delivered.

rest     what is asked for, and why it may not be
joint    the frames of a later part as if they were the first's
several  the choices of one answer, each gone on with by itself

To the application it is one stream: the first part's id, time and model, one role a choice, usage
added up. Added up is what is paid: each part's prompt (with the text before it) and each part's
tokens. A part whose provider never told its prompt counts as the application's own prompt.
"""

from hanse.gateway.resilience.continuing.joint import Joint
from hanse.gateway.resilience.continuing.rest import (
    count_choices,
    find_obstacle,
    make_end,
    make_rest,
)
from hanse.gateway.resilience.continuing.several import Several, make_comment

__all__ = [
    "Joint",
    "Several",
    "count_choices",
    "find_obstacle",
    "make_comment",
    "make_end",
    "make_rest",
]
