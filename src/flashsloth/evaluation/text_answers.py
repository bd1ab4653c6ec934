"""Answers in free text, made comparable as the benchmarks' own scorers do.

In: what a model said, and what people said. Out: texts that are equal where a scorer calls them equal, or the share
that it gives. The rules are the published ones, with their oddities: what looks like a mistake here is theirs.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

ARTICLES = {"a", "an", "the"}
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
SHORT_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form
    for form in SHORT_FORMS.split()
    for place, mark in enumerate(form)
    if mark == "'"
} | {"somebody'd": "somebodyd"}
"""A short form that lacks one of its apostrophes -> the form; the last one is the published table's own mistake."""
MARKS = ';/[]"{}()=+\\_-><@`!'
FULL_STOP = re.compile(r"\.(?!\d)")
MOST_STOPS = 32
"""Full stops that are removed: the published code passes a flag of that value where `re.sub` takes a count."""
ENOUGH = 3
"""Of the other nine people, how many must agree with an answer for it to be wholly right."""
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def vqa_text(text: str) -> str:
    """An answer as VQA's evaluation server compares it: lower case, no articles, digits for numbers, no punctuation.

    "a-b" becomes "b" and "A" becomes nothing.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for mark in MARKS:
        stands_apart = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if stands_apart else " ")
    words = [NUMBERS.get(word, word) for word in FULL_STOP.sub("", plain, count=MOST_STOPS).split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """0 to 1: how many people agree, with each of them left out in turn.

    1, 2 and 3 of ten who agree are 0.3, 0.6 and 0.9.
    """
    said = vqa_text(answer)
    agree = [vqa_text(one) == said for one in people]
    return sum(min(1.0, (sum(agree) - own) / ENOUGH) for own in agree) / len(agree)


def bare_text(text: str) -> str:
    """Lower case, without punctuation: what lmms-eval's exact match compares."""
    return text.lower().translate(NO_PUNCTUATION)
