"""Names, places and things that the generators draw from, and made-up names.

Knows words; knows no questions and no templates.
"""

# ruff: noqa: SIM905 - word lists read better as text
from __future__ import annotations

from random import Random

FIRST_NAMES = tuple(
    """Ada Adam Aisha Alba Alex Alice Amir Amy Ana Anders Andre Anna Anton Ara Ben Bella Bo Boris Bruno Carla Carmen
    Cem Chloe Clara Cora Dana Daniel Dara David Dora Eden Eli Ella Elsa Emil Emma Eric Erin Esra Eva Fatima Felix Fay
    Finn Flora Frank Freya Gina Greta Gus Hana Hanna Hassan Helen Henry Hugo Ida Igor Ines Ingrid Iris Ivan Jack Jana
    Jane Jin John Jonas Julia June Kai Kamal Karl Kate Ken Kim Kira Lara Lars Laura Lea Lena Leo Lily Lina Linda Liam
    Lisa Lola Lucas Lucy Luna Maja Marco Maria Mark Marta Mary Max Maya Mei Mia Mila Milo Mina Mira Nadia Nahla Nell
    Nico Nina Noah Nora Olga Oleg Olive Omar Oscar Otto Paul Pavel Pedro Penny Peter Petra Pia Priya Quinn Rafael Raj
    Rana Rita Rob Robin Rosa Ruth Sam Sara Sasha Selma Sofia Stella Sven Tara Tariq Tess Theo Tilda Tim Tina Tom Uma
    Vera Victor Viola Wanda Will Yara Yuki Yusuf Zara Zoe""".split()
)
CITIES = tuple(
    """Amsterdam Ankara Athens Austin Baku Bangkok Barcelona Basel Beijing Bergen Berlin Bern Bogota Bologna Boston
    Bremen Brussels Budapest Cairo Chicago Cologne Copenhagen Dakar Dallas Delhi Denver Dresden Dublin Edinburgh
    Florence Geneva Genoa Ghent Glasgow Graz Hamburg Hanoi Havana Helsinki Houston Istanbul Jakarta Kyoto Lagos Leeds
    Leipzig Lima Lisbon London Lyon Madrid Malmo Manila Marseille Miami Milan Montreal Moscow Mumbai Munich Nairobi
    Naples Nice Oslo Osaka Oxford Padua Paris Perth Porto Prague Quito Riga Rome Rotterdam Salzburg Santiago Seattle
    Seoul Seville Shanghai Singapore Sofia Stockholm Sydney Tallinn Tokyo Toronto Toulouse Turin Utrecht Vancouver
    Venice Vienna Vilnius Warsaw York Zagreb Zurich""".split()
)
JOBS = tuple(
    """baker teacher nurse painter pilot farmer cook singer writer driver doctor gardener carpenter dentist
    librarian plumber sailor tailor waiter builder""".split()
)
COLORS = tuple("red blue green yellow black white orange purple pink brown grey silver gold".split())
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple("January February March April May June July August September October November December".split())
GOODS = tuple(
    """lamp chair table kettle bicycle jacket scarf mug notebook pencil backpack umbrella clock mirror carpet pillow
    blanket basket candle bottle camera guitar drum kite tent rope ladder hammer bucket teapot spoon bowl plate ring
    hat coat shoe glove belt wallet""".split()
)
FRUITS = tuple("apples pears plums cherries lemons oranges figs grapes melons peaches nuts berries".split())
HOBBIES = tuple(
    """chess tea music hiking swimming painting reading dancing cooking cycling football tennis sailing gardening
    baking skating knitting singing running fishing""".split()
)
TOPICS = tuple(
    """volcanoes penguins trains castles bees rainbows coral comets bridges owls maps cheese robots deserts glaciers
    pianos whales tides mushrooms lighthouses windmills spiders honey pottery satellites""".split()
)
LANGUAGES = tuple("French German Spanish Italian Turkish Dutch Polish Greek Swedish Japanese Korean Hindi".split())

_ONSETS = "b br ch d dr f g gr h j k kr l m n p pl r s sh st t tr v w y z".split()
_VOWELS = "a e i o u ai ea io".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "k", "m", "x"]


def made_up(rng: Random, num_syllables: int = 2) -> str:
    """A pronounceable word that means nothing, capitalised: it can only be copied."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(num_syllables))
    return "".join(syllables).capitalize()


def person(rng: Random) -> str:
    return rng.choice(FIRST_NAMES) if rng.random() < 0.75 else made_up(rng)


def city(rng: Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.75 else made_up(rng)


def number(rng: Random) -> int:
    """An integer of one to four digits, each length as likely as the others."""
    num_digits = rng.randint(1, 4)
    return rng.randint(10 ** (num_digits - 1), 10**num_digits - 1)


def listed(items: list[str], joint: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {joint} " + items[-1]
