"""The prompts of the quality gate: fixed, short, of eight kinds, so that two runs ask the same.

They are of several kinds because changes of numerics show in different places: code and numbers
leave little choice of the next token, free text leaves much.
"""

from collections.abc import Mapping

_PASSAGE = (
    "The harbour master keeps three books. The first lists every ship with its flag and its"
    " draught, the second every berth with its depth at low water, and the third what was paid. On"
    " the ninth of March the Aurora, draught 7.2 metres, asked for berth 4, whose depth is 6.8"
    " metres at low water, and was sent to berth 11 instead. She paid 340 crowns and left at dawn."
)

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "facts": (
        "Name the four largest moons of Jupiter and say who discovered them.",
        "What does the mitochondrion do in a cell? Answer in three sentences.",
        "Which river flows through Vienna, Budapest and Belgrade, and where does it end?",
        "Explain in two sentences why the sky is blue and sunsets are red.",
    ),
    "numbers": (
        "Compute 17 * 24 step by step, then give the result.",
        "A train leaves at 14:35 and arrives at 17:10. How long is the journey, in minutes?",
        "List the prime numbers between 50 and 100, separated by commas.",
        "If 3 pumps empty a tank in 8 hours, how long do 4 pumps take? Show the calculation.",
    ),
    "code": (
        "Write a Python function that returns the n-th Fibonacci number without recursion.",
        "Write an SQL query that returns the ten customers with the highest total of orders.",
        "Explain what this does: `sorted(set(words), key=lambda w: (-len(w), w))`.",
        "Write a regular expression that matches a date such as 2024-09-30, and explain it.",
    ),
    "translation": (
        "Translate into French: The meeting was moved to Thursday because the room was taken.",
        "Translate into German: She had forgotten her keys, so she waited on the stairs.",
        "Translate into Spanish: How much does it cost to send this parcel to Canada?",
        "Translate into English: Il pleuvait depuis trois jours et la rivière montait encore.",
    ),
    "reading": (
        f"{_PASSAGE}\n\nWhy was the Aurora not given berth 4?",
        f"{_PASSAGE}\n\nWhat do the three books hold? Answer with a list.",
        f"{_PASSAGE}\n\nSummarise the passage in one sentence.",
        f"{_PASSAGE}\n\nRepeat the last sentence of the passage word for word.",
    ),
    "format": (
        'Return a JSON object with the keys "name", "year" and "city" for the Eiffel Tower.',
        "Write a Markdown table of three planets with their diameter in kilometres.",
        "Give a numbered list of five steps for making tea.",
        "Write the letters of the English alphabet in reverse order, separated by spaces.",
    ),
    "writing": (
        "Write a short poem about a lighthouse in winter.",
        "Write the first paragraph of a story that begins in an empty railway station.",
        "Write a polite e-mail that declines an invitation to a wedding.",
        "Describe the smell of a bookshop to somebody who has never been in one.",
    ),
    "talk": (
        "Hello! Can you help me to plan a weekend in Lisbon?",
        "I cannot sleep lately. What could I try tonight?",
        "Is it better to learn the piano or the guitar as an adult? Give reasons for both.",
        "My code works on my machine but not on the server. What should I check first?",
    ),
}


def prompts() -> list[str]:
    """Return all prompts; those of a kind stand far apart, so that a few are of several kinds."""
    return [prompt for row in zip(*PROMPTS.values(), strict=True) for prompt in row]
