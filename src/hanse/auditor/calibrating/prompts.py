"""Questions of several kinds, for calibrations and benchmarks: chat, code, JSON, lists, languages.

Made from subjects and forms, so that a thousand differ; none is taken from anywhere. Honest noise
depends on what is written, so a calibration takes all kinds in turn.
"""

from typing import Any

SUBJECTS = (
    "tides", "bread", "bicycles", "lighthouses", "volcanoes", "libraries", "bees", "maps",
    "clocks", "rivers", "paper", "bridges", "owls", "glass", "markets", "winter", "trains",
    "music", "salt", "gardens", "ships", "kites", "rain", "mountains", "letters", "cheese",
    "forests", "windmills", "coins", "stars", "chess", "islands", "wool", "lanterns", "fog",
    "canals", "apples", "harbours", "dictionaries", "compasses",
)  # fmt: skip

FORMS = (
    ("chat", "Tell me something about {}."),
    ("code", "Write a Python function about {} that returns a dictionary, with a docstring."),
    ("json", 'Describe {} as JSON with the keys "name", "size" and "colours".'),
    ("list", "List ten facts about {}, numbered."),
    ("german", "Erkläre mir kurz, was man über {} wissen sollte."),
    ("french", "Raconte-moi une petite histoire avec des {}."),
    ("chat", "Why do people care about {}? Answer as if to a child."),
    ("spanish", "¿Qué sabes de {}? Responde en dos frases."),
    ("code", "Explain this SQL: SELECT name, COUNT(*) FROM {} GROUP BY name;"),
    ("chat", "Write a short letter to a friend who loves {}."),
)

SYSTEMS = ("", "You are a helpful assistant.", "You are a pirate; answer in your manner.")

KINDS = tuple(dict.fromkeys(kind for kind, _ in FORMS))

PLAIN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""A sampler without filters: its walk goes through the vocabulary in order."""

SAMPLERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7, **PLAIN},
    {"temperature": 1.0, **PLAIN},
    {"temperature": 0.0, **PLAIN},
    {},
)
"""What requests ask for in turn; the last names nothing and gets the engine's defaults."""


LONG_EVERY = 4
"""Of so many questions one has a long prompt, where these are asked for."""

WORDS_PER_NOTE = 11


def make_request(
    number: int, output_tokens: int, prompt_tokens: int = 0
) -> tuple[str, dict[str, Any]]:
    """The kind and the body of question `number`; 400 subjects and forms, each with any sampler.

    With `prompt_tokens` every fourth is preceded by notes of about so many tokens.
    """
    kind, form = FORMS[number % len(FORMS)]
    subject = SUBJECTS[number // len(FORMS) % len(SUBJECTS)]
    if number % LONG_EVERY == LONG_EVERY - 1:
        form = _make_notes(number, prompt_tokens) + form
    system = SYSTEMS[number // 7 % len(SYSTEMS)]
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": form.format(subject)})
    sampler = SAMPLERS[(number // len(FORMS) + number) % len(SAMPLERS)]
    return kind, {
        "model": "audited",
        "messages": messages,
        "max_tokens": output_tokens,
        "stream": True,
        **sampler,
    }


def _make_notes(number: int, tokens: int) -> str:
    """Sentences of which no two are alike, so that nothing of them is in a cache."""
    places = (SUBJECTS[(number + 3 * at) % len(SUBJECTS)] for at in range(tokens // WORDS_PER_NOTE))
    return "".join(
        f"Note {number}-{at}: somebody wrote of {name}. " for at, name in enumerate(places)
    )
