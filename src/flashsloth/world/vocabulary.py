"""The words of the world: names of shapes and colours with plurals and articles, and what gets written into pictures.

In: a random stream. Out: common words, pronounceable nonsense, letters and numbers that can be read without doubt about
their case.
"""

import re
from random import Random

KINDS = ("shape", "color", "presence", "count", "relation", "reading", "chart", "choice", "unknown")

SHAPES = (
    "circle", "square", "rectangle", "triangle", "star", "hexagon", "oval", "diamond", "pentagon", "heart", "cross",
)  # fmt: skip
SHAPE_WEIGHTS = (16, 16, 12, 14, 12, 12, 5, 5, 5, 5, 5)

COLORS = (
    "red", "green", "blue", "yellow", "orange", "purple", "black", "gray", "white", "pink", "brown", "cyan",
)  # fmt: skip
COLOR_WEIGHTS = (10, 10, 10, 10, 10, 10, 10, 10, 4, 4, 4, 4)

# Shapes that a careful reader may also call by the other's name: never denied, never offered against each other.
LOOSE_NAMES = {"rectangle": ("square",), "oval": ("circle",), "diamond": ("square",)}

POSITIONS = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
OPTION_LETTERS = ("A", "B", "C", "D")
YES, NO = "yes", "no"
UNKNOWN = "I can't tell"

_COMMON_WORDS = """
    able acid age air all ant apple arm art ask baby back bag ball bank base bat bath beach bear bed bee bell
    best bird blow boat body bone book boot born boss both bowl box boy brave bread brick bring brush bus busy
    cake call calm camp cap car card care cart cash cat chair chalk cheap chef city clay clean clear clip clock
    close cloud club coat code coin cold cook cool copy corn cost cow crab cup dance dark date dawn day deep
    deer desk dig dish dog door down draw dream dress drink drive drop drum duck dust ear earth easy eat egg
    empty end even exit eye face fact fair fall fan farm fast father fear feel fence field film find fire first
    fish five flag flat floor flow flour fly food foot fork four fox free fresh frog front fruit full fun game
    garden gate gift girl give glass glove goat gold golf good grand grape grass great grow guess guide hair
    half hall hand happy hard hat head hear heat heavy help hen hero hide high hill home honey hope horn horse
    hot hotel hour house ice idea iron jam jar job join joke jump just keep key kid kind king kite knee knife
    lake lamp land large last late lazy leaf left lemon level light lime line lion lip list long look lost loud
    love low luck lunch made magic mail make map mark match meal meat menu metal milk mind mint moon more moth
    mouse move much mud music nail name near neck need nest net never new next nice night nine noise north nose
    note nut oak ocean oil one open oven owl page paint pan paper park part party path peace pear pen pet phone
    piano pig pin pink place plan plant plate play plum pond pool pop port post pot pull push quick quiet rabbit
    race radio rain read ready rest rice rich ride right ring rise river road robin rock roof room root rope
    rose rug rule run safe sail salt same sand save school sea seat seed sell send ship shirt shoe shop show
    silk silver sing sink six skin sky sleep slow small smart smile snow soap sock soft song soup south spoon
    sport star start stay steel step stone stop store storm story street sugar suit sun sweet swim table tail
    take talk tall tank tape tea team ten tent test text thin three tie tiger time tiny toe top town toy train
    tree truck true tube turn two uncle under unit up use van view visit voice walk wall want warm wash watch
    water wave week west wheel white wide wife wild win wind window wine wing winter wolf wood wool word work
    world yard year young zebra zero zoo
"""
COMMON = tuple(_COMMON_WORDS.split())
ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "ch", "cl", "dr",
    "fl", "gr", "pl", "qu", "sh", "st", "th", "tr", "y",
)  # fmt: skip
VOWELS = ("a", "e", "i", "o", "u", "ea", "oo", "ai", "y")
CODAS = ("", "", "", "b", "d", "g", "k", "l", "m", "n", "p", "r", "s", "t", "x", "nd", "st", "ck", "ng")
NONSENSE_SHARE, RANDOM_SHARE = 0.4, 0.1
CASE_WEIGHTS = (40, 35, 25)  # lower, Title, UPPER

# Letters whose two cases differ by size alone: alone in a picture, or all of a word, they could be either.
SAME_IN_BOTH_CASES = frozenset("cosuvwxzkp")
LETTERS_ALONE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abdefghimnqrty"
CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_WORD = re.compile(r"[A-Za-z]+")


def article(phrase: str) -> str:
    """`phrase` behind its indefinite article: "a red circle", "an orange square"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of one of the world's nouns: "circles", "crosses", "boxes"."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def words_of(text: str) -> list[str]:
    """The runs of letters in `text`, in order, case as it stands."""
    return _WORD.findall(text)


def sample_word(rng: Random, longest: int = 7) -> str:
    """A word of 2 to `longest` letters: common, pronounceable nonsense or, rarely, letters at random; any case."""
    while True:
        draw = rng.random()
        if draw < RANDOM_SHARE:
            word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, min(longest, 5))))
        elif draw < RANDOM_SHARE + NONSENSE_SHARE:
            syllables = (rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2))))
            word = "".join(syllables) + rng.choice(CODAS)
        else:
            word = rng.choice(COMMON)
        if 2 <= len(word) <= longest and not SAME_IN_BOTH_CASES.issuperset(word):
            return rng.choices((word, word.capitalize(), word.upper()), CASE_WEIGHTS)[0]


def sample_letter(rng: Random) -> str:
    """One letter that is clear by itself, mostly a capital."""
    return rng.choice(LETTERS_ALONE)


def sample_number(rng: Random, digits: int | None = None) -> str:
    """A number of one to four digits without leading zeros."""
    digits = digits or rng.choices((1, 2, 3, 4), (30, 35, 20, 15))[0]
    return str(rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1))


def altered(rng: Random, text: str) -> str:
    """A string of the same kind and case that differs from `text` in one character, sometimes altogether."""
    if text.isdigit():
        pool = "0123456789"
    elif rng.random() < 0.4 and len(text) > 1:
        other = sample_word(rng)
        other = other.upper() if text.isupper() else other.lower() if text.islower() else other.capitalize()
        return other if other != text else altered(rng, text)
    else:
        pool = "abdefghimnrty"
    place = rng.randrange(len(text)) if not (text.isdigit() and len(text) > 1) else rng.randrange(1, len(text))
    new = rng.choice([char for char in pool if char.lower() != text[place].lower()])
    new = new.upper() if text[place].isupper() else new
    return text[:place] + new + text[place + 1 :]
