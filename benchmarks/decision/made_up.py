"""Tasks built from invented knowledge and invented notations, which no base can have seen. Seeded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from benchmarks.decision.scenario import make_row
from components.data.rows import Row
from components.decision.corpus import Passage

__all__ = [
    "capitals",
    "dates_in_house_notation",
    "file_marks",
    "founding_dates",
    "multiplications",
    "people_as_json",
    "rooms",
    "stated_capitals",
    "stated_rooms",
]

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
FIRST = ("Maria", "Jonas", "Elena", "Peter", "Sofia", "Martin", "Laura", "Daniel", "Anna", "Thomas", "Clara", "Felix",
         "Nina", "Oscar", "Julia", "Victor", "Emma", "Hugo", "Alice", "Simon")  # fmt: skip
LAST = ("Lopez", "Berg", "Rossi", "Novak", "Silva", "Keller", "Moreau", "Hansen", "Costa", "Weber", "Dubois", "Lind",
        "Romano", "Horvat", "Santos", "Fischer", "Laurent", "Dahl", "Bianchi", "Kovac")  # fmt: skip
CITIES = ("Oslo", "Madrid", "Vienna", "Lisbon", "Prague", "Dublin", "Athens", "Warsaw", "Helsinki", "Rome")
NAME_STARTS = ("zor", "kel", "bru", "mav", "tis", "dra", "vel", "quo", "nar", "pla", "gri", "sto", "fen", "hul", "jor")
NAME_MIDDLES = ("va", "ti", "lo", "mu", "ne", "ri", "sa", "do", "be", "ku")
NAME_ENDS = ("nia", "dor", "land", "mar", "stan", "ville", "ton", "burg", "wick", "ria")


def _names(seed: str) -> Iterator[str]:
    chosen = random.Random(seed)
    names = [f"{a}{b}{c}".capitalize() for a in NAME_STARTS for b in NAME_MIDDLES for c in NAME_ENDS]
    chosen.shuffle(names)
    return iter(names)


def capitals(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask for the capitals of invented countries; the corpus has one sentence about each."""
    names = _names("capitals")
    rows, passages = [], []
    for number in range(count):
        country, city, river = next(names), next(names), next(names)
        text = f"{country} is a country on the river {river}. Its capital is {city}."
        passages.append(Passage(f"country-{number}", text))
        rows.append(make_row(f"What is the capital of {country}?", city, gold=f"country-{number}"))
    return rows, passages


def stated_capitals(count: int) -> list[Row]:
    """Ask the same with the sentence in the question: nothing is missing, the answer only has to be read off."""
    rows, passages = capitals(count)
    return [
        make_row(f"{passage.text}\n{row.prompt[-1].content}", row.answer)
        for row, passage in zip(rows, passages, strict=True)
    ]


def rooms(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask for the rooms of an invented company's people; the corpus is its directory."""
    chosen = random.Random("rooms")
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    chosen.shuffle(people)
    departments = ("Sales", "Legal", "Finance", "Support", "Design", "Research")
    rows, passages = [], []
    for number, person in enumerate(people[:count]):
        room, department = f"{chosen.choice('ABCDEF')}{chosen.randint(100, 999)}", chosen.choice(departments)
        passages.append(Passage(f"person-{number}", f"{person} works in {department}, room {room}."))
        rows.append(make_row(f"Which room does {person} work in?", room, gold=f"person-{number}"))
    return rows, passages


def stated_rooms(count: int) -> list[Row]:
    """Ask the same with the directory's line in the question."""
    rows, passages = rooms(count)
    return [
        make_row(f"{passage.text}\n{row.prompt[-1].content}", row.answer)
        for row, passage in zip(rows, passages, strict=True)
    ]


def _date(chosen: random.Random) -> tuple[str, str]:
    """Return a date as it is usually written, and in a house notation with a Roman month."""
    day, month, year = chosen.randint(1, 28), chosen.randrange(12), chosen.randint(1700, 2020)
    return f"{MONTHS[month]} {day}, {year}", f"{day:02d}.{ROMAN[month]}.{year}"


def dates_in_house_notation(count: int) -> list[Row]:
    """Write the date of a sentence in the house notation."""
    chosen, names = random.Random("dates"), _names("dates")
    rows = []
    for _ in range(count):
        written, noted = _date(chosen)
        question = f"The town of {next(names)} was founded on {written}. Write the date in house notation."
        rows.append(make_row(question, noted))
    return rows


def founding_dates(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask when invented towns were founded, to be answered in the house notation; the corpus has the usual one."""
    chosen, names = random.Random("founding"), _names("founding")
    rows, passages = [], []
    for number in range(count):
        town, (written, noted) = next(names), _date(chosen)
        passages.append(Passage(f"town-{number}", f"The town of {town} was founded on {written}."))
        question = f"When was {town} founded? Answer in house notation."
        rows.append(make_row(question, noted, gold=f"town-{number}"))
    return rows, passages


def file_marks(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask for the marks of the files on invented towns: the town's first letters and its founding date."""
    chosen, names = random.Random("files"), _names("files")
    rows, passages = [], []
    for number in range(count):
        town, (written, noted) = next(names), _date(chosen)
        passages.append(Passage(f"file-{number}", f"The town of {town} was founded on {written}."))
        question = f"Write the mark of the file on {town} in house notation."
        rows.append(make_row(question, f"{town[:4].upper()}-{noted}", gold=f"file-{number}"))
    return rows, passages


def people_as_json(count: int) -> list[Row]:
    """Turn a sentence about a person into the compact JSON of a house: short keys, surname first in capitals."""
    chosen = random.Random("people")
    rows = []
    for _ in range(count):
        first, last, city = chosen.choice(FIRST), chosen.choice(LAST), chosen.choice(CITIES)
        age = chosen.randint(18, 80)
        answer = json.dumps({"n": f"{last.upper()},{first[0]}", "a": age, "c": city[:3].lower()})
        rows.append(make_row(f"{first} {last} is {age} years old and lives in {city}.", answer))
    return rows


def multiplications(count: int) -> list[Row]:
    """Multiply two numbers of three digits: arithmetic that a model of this size does not do in its head."""
    chosen = random.Random("multiplications")
    pairs = sorted({(chosen.randint(101, 999), chosen.randint(101, 999)) for _ in range(2 * count)})
    chosen.shuffle(pairs)
    return [make_row(f"What is {a} times {b}?", str(a * b)) for a, b in pairs[:count]]
