"""What is asked: twenty kinds of question, each under four samplers.

Calibration and held-out questions have no subject in common, and half of the held-out ones have a
form that no calibration saw: thresholds have to hold for what they were not made from.
"""

from typing import Any

from hanse.auditor.calibrating.prompts import FORMS, SAMPLERS, SUBJECTS, SYSTEMS

NEW_SUBJECTS = (
    "kettles", "deserts", "violins", "sparrows", "tunnels", "mirrors", "pepper", "ferries",
    "calendars", "cellars", "comets", "gloves", "honey", "ink", "ladders", "meadows", "needles",
    "orchards", "pianos", "quarries", "ropes", "sundials", "thunder", "umbrellas", "valleys",
    "wells", "yeast", "zinc", "anchors", "barley", "candles", "doors", "eels", "feathers",
    "geysers", "hedges", "icebergs", "juniper", "keys", "looms",
)  # fmt: skip
"""Of held-out questions only."""

NEW_FORMS = (
    ("code", "Write a C function that counts {} in an array of strings."),
    ("json", "Give me a JSON array of three objects about {}, each with an id and a name."),
    ("list", "Make a shopping list for somebody who collects {}."),
    ("italian", "Spiegami in breve che cosa sono: {}."),
    ("portuguese", "Escreva um parágrafo sobre {}."),
    ("russian", "Расскажи коротко про {}."),
    ("chinese", "请用两句话介绍一下 {}。"),
    ("chat", "Write a dialogue of two people who argue about {}."),
    ("math", "A shop sells {} at 3 coins each. What do 17 of them cost? Show each step."),
    ("yaml", "Write a YAML file that configures a museum of {}."),
)
"""Of held-out questions only; languages and formats that no calibration of the product asks for."""

MORE_SYSTEMS = (*SYSTEMS, "Answer in one sentence.", "You are a patient teacher of ten years.")

TEMPERATURES = ("0.7", "1", "0", "default")
"""Of SAMPLERS, in their order; `default` is llama.cpp's own sampler (0.8, top-k, top-p, min-p)."""

Question = tuple[str, dict[str, Any]]


def make_questions(
    number: int, tokens: int, *, is_held_out: bool, is_cheat: bool = False
) -> list[Question]:
    """Question `number` under each sampler: kind and body, the prompt the same in all of them.

    Those for cheats have a system message always, for one of the cheats drops it.
    """
    forms = (*FORMS, *NEW_FORMS) if is_held_out else FORMS
    subjects = NEW_SUBJECTS if is_held_out else SUBJECTS
    kind, form = forms[number % len(forms)]
    subject = subjects[number // len(forms) % len(subjects)]
    rounds = number // (len(forms) * len(subjects))
    system = MORE_SYSTEMS[(rounds + number) % len(MORE_SYSTEMS)]
    if is_cheat:
        system = system or MORE_SYSTEMS[1]
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": form.format(subject)})
    return [
        (
            kind,
            {
                "model": "audited",
                "messages": messages,
                "max_tokens": tokens,
                "stream": True,
                **sampler,
            },
        )
        for sampler in SAMPLERS
    ]
