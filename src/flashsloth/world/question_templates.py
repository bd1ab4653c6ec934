"""How questions are put: several wordings for each thing that can be asked.

In: nothing. Out: `WORDINGS`, templates by topic; `say`, one of them filled in, now and then in lower
case or with "colour".
"""

import re
from random import Random

from flashsloth.world.captions import CAPTION_PHRASES
from flashsloth.world.referring_expressions import NAME_PHRASES
from flashsloth.world.vocabulary import COLORS, NO, OPTION_LETTERS, POSITIONS, SHAPES, UNKNOWN, YES, plural, words_of

LOWER_SHARE, BRITISH_SHARE, GREY_SHARE = 0.12, 0.2, 0.2

WORDINGS: dict[str, tuple[str, ...]] = {
    "shape": (
        "What shape is {ref}?", "Which shape is {ref}?", "What is the shape of {ref}?", "What kind of shape is {ref}?",
        "Name the shape of {ref}.", "Tell me what shape {ref} is.", "What geometric shape is {ref}?",
        "{Ref}: what shape is it?", "What shape does {ref} have?",
    ),
    "shape only": (
        "What shape is this?", "What shape is shown?", "What shape is in the picture?", "Which shape do you see?",
        "What shape is in the image?", "Name the shape.", "What is the shape of the object?", "What shape is it?",
        "Which shape is shown in the image?", "What kind of shape is this?",
    ),
    "name only": (
        "What is in the picture?", "What do you see?", "What is shown in the image?", "What object is in the picture?",
        "What is in the image?", "What is this?",
    ),
    "color": (
        "What color is {ref}?", "Which color is {ref}?", "What is the color of {ref}?", "What color does {ref} have?",
        "Name the color of {ref}.", "Tell me the color of {ref}.", "{Ref}: what color is it?",
        "In what color is {ref}?", "What color is {ref} in the image?", "What color is {ref} in the picture?",
    ),
    "color only": (
        "What color is it?", "Which color do you see?", "What is the color?", "What color is this shape?",
        "What color is shown?", "What color is this?",
    ),
    "background": (
        "What color is the background?", "What is the color of the background?", "What is the background color?",
        "Which color is behind everything?", "Name the background color.", "What color is the picture's background?",
    ),
    "presence": (
        "Is there {a}?", "Is there {a} in the picture?", "Is there {a} in the image?", "Do you see {a}?",
        "Can you see {a}?", "Does the picture contain {a}?", "Does the image show {a}?", "Is {a} present?",
        "Is {a} visible in the image?", "Is there {a} here?", "Does the image have {a}?", "Is {a} in the picture?",
    ),
    "presence many": (
        "Are there any {noun}?", "Are there any {noun} in the picture?", "Do you see any {noun}?",
        "Does the image contain any {noun}?", "Are there {noun} in the image?", "Can you see any {noun}?",
    ),
    "count": (
        "How many {noun} are there?", "How many {noun} are in the picture?", "How many {noun} are in the image?",
        "How many {noun} do you see?", "How many {noun} can you see?", "Count the {noun}.",
        "What is the number of {noun}?", "How many {noun} does the picture show?", "Tell me how many {noun} there are.",
        "How many {noun} are shown?", "What number of {noun} is there?", "How many {noun} does the image contain?",
    ),
    "left": (
        "Is {ref} to the left of {other}?", "Is {ref} left of {other}?", "Is {ref} on the left side of {other}?",
        "Does {ref} stand to the left of {other}?", "Is {ref} further left than {other}?",
        "Is {ref} on the left of {other}?",
    ),
    "right": (
        "Is {ref} to the right of {other}?", "Is {ref} right of {other}?", "Is {ref} on the right side of {other}?",
        "Does {ref} stand to the right of {other}?", "Is {ref} further right than {other}?",
        "Is {ref} on the right of {other}?",
    ),
    "above": (
        "Is {ref} above {other}?", "Is {ref} higher than {other}?", "Is {ref} higher up than {other}?",
        "Does {ref} stand above {other}?", "Is {ref} over {other}?", "Is {ref} placed above {other}?",
    ),
    "below": (
        "Is {ref} below {other}?", "Is {ref} lower than {other}?", "Is {ref} further down than {other}?",
        "Does {ref} stand below {other}?", "Is {ref} under {other}?", "Is {ref} placed below {other}?",
    ),
    "where": (
        "Where is {ref}?", "Where in the picture is {ref}?", "Where in the image is {ref}?",
        "What is the position of {ref}?", "In which part of the image is {ref}?", "Where do you see {ref}?",
        "Where is {ref} placed?",
    ),
    "half": (
        "Is {ref} in the {half} half of the picture?", "Is {ref} in the {half} half of the image?",
        "Is {ref} in the {half} part of the picture?", "Does {ref} lie in the {half} half?",
        "Is {ref} on the {half} side of the image?", "Is {ref} in the {half} half?",
    ),
    "side": (
        "Is {ref} on the left or on the right?", "Is {ref} on the left or right side?",
        "Left or right: where is {ref}?",
    ),
    "height": (
        "Is {ref} at the top or at the bottom?", "Is {ref} in the top or bottom half?",
        "Top or bottom: where is {ref}?",
    ),
    "neighbour": (
        "What is {side} {ref}?", "What object is {side} {ref}?", "What do you see {side} {ref}?",
        "Which object is {side} {ref}?", "What is placed {side} {ref}?", "What stands {side} {ref}?",
    ),
    "neighbour shape": (
        "What shape is {side} {ref}?", "Which shape is {side} {ref}?", "What shape do you see {side} {ref}?",
    ),
    "neighbour color": (
        "What color is the shape {side} {ref}?", "What is the color of the object {side} {ref}?",
        "Which color is the object {side} {ref}?",
    ),
    "bigger": (
        "Which is bigger, {ref} or {other}?", "Which is larger, {ref} or {other}?", "What is bigger, {ref} or {other}?",
        "Which one is bigger: {ref} or {other}?", "Which one is larger: {ref} or {other}?",
        "Of {ref} and {other}, which is bigger?",
    ),
    "smaller": (
        "Which is smaller, {ref} or {other}?", "What is smaller, {ref} or {other}?",
        "Which one is smaller: {ref} or {other}?", "Of {ref} and {other}, which is smaller?",
    ),
    "is bigger": (
        "Is {ref} bigger than {other}?", "Is {ref} larger than {other}?", "Does {ref} look bigger than {other}?",
        "Is {ref} of larger size than {other}?",
    ),
    "is smaller": ("Is {ref} smaller than {other}?", "Does {ref} look smaller than {other}?"),
    "read word": (
        "What does the text say?", "What word is written?", "What word is shown?", "Read the text.", "Read the word.",
        "What is written in the picture?", "What is written in the image?", "What does it say?",
        "Which word do you see?", "What is the word?", "What text is in the image?", "What word is in the picture?",
    ),
    "read letter": (
        "What letter is this?", "What letter is shown?", "Which letter do you see?", "Read the letter.",
        "What letter is in the picture?", "Which letter is in the image?", "What is the letter?",
        "What letter is written?",
    ),
    "read number": (
        "What number is this?", "What number is shown?", "Which number do you see?", "Read the number.",
        "What number is in the picture?", "Which number is in the image?", "What is the number?",
        "What number is written?",
    ),
    "read which": (
        "What does the {which} text say?", "What is the {which} text?", "Read the {which} text.",
        "What is written in the {which} text?", "What does the {which} line say?",
    ),
    "read colored": (
        "What does the {which} text say?", "What is written in {which}?", "Read the {which} text.",
        "What text is {which}?", "What is the {which} text?", "What is the text in {which}?",
    ),
    "read inside": (
        "What {sign} is in {ref}?", "What {sign} is inside {ref}?", "Which {sign} is in {ref}?",
        "What is written in {ref}?", "What {sign} is written inside {ref}?", "Which {sign} does {ref} contain?",
        "Read the {sign} in {ref}.", "What {sign} is on {ref}?",
    ),
    "read first": (
        "What is the first letter of the word?", "Which letter does the word start with?",
        "What letter does the word begin with?", "What is the first letter?",
    ),
    "read last": (
        "What is the last letter of the word?", "Which letter does the word end with?", "What is the last letter?",
    ),
    "color of text": (
        "What color is {ref}?", "What is the color of {ref}?", "Which color is {ref}?",
        "In what color is {ref} written?", "What color does {ref} have?", "Name the color of {ref}.",
    ),
    "says": (
        'Does the {sign} say "{text}"?', 'Is the {sign} "{text}"?', 'Does the picture show "{text}"?',
        'Is "{text}" written in the image?', 'Do you see "{text}"?', 'Is the {sign} in the picture "{text}"?',
    ),
    "shows": ('Does the picture show "{text}"?', 'Is "{text}" written in the image?', 'Do you see "{text}"?'),
    "has letter": (
        'Is the letter "{text}" in the word?', 'Does the word contain the letter "{text}"?',
        'Is there a "{text}" in the word?', 'Does the word have the letter "{text}"?',
    ),
    "count letters": (
        "How many letters does the word have?", "How many letters are in the word?", "How many letters are there?",
        "Count the letters.", "How long is the word?", "How many letters do you see?",
    ),
    "count digits": (
        "How many digits does the number have?", "How many digits are in the number?", "Count the digits.",
        "How many digits are there?",
    ),
    "text above": (
        'Is "{text}" above "{other}"?', 'Is the text "{text}" above "{other}"?', 'Is "{text}" higher than "{other}"?',
    ),
    "text below": (
        'Is "{text}" below "{other}"?', 'Is the text "{text}" below "{other}"?', 'Is "{text}" lower than "{other}"?',
    ),
    "text where": ("Is the {sign} above or below {ref}?", "Above or below {ref}: where is the {sign}?"),
    "chart bars": (
        "How many bars are there?", "How many bars does the chart have?", "How many bars are in the chart?",
        "Count the bars.", "What is the number of bars?", "How many bars do you see?", "How many bars are shown?",
        "How many categories are in the chart?",
    ),
    "chart largest": (
        "Which bar is the largest?", "Which bar is the longest?", "Which bar has the highest value?",
        "What is the label of the largest bar?", "Which category has the largest value?", "Which one is the highest?",
        "Which category is the biggest?", "What category has the highest bar?",
    ),
    "chart tallest": (
        "Which bar is the tallest?", "Which bar is the highest?", "What is the label of the tallest bar?",
    ),
    "chart smallest": (
        "Which bar is the smallest?", "Which bar is the shortest?", "Which bar has the lowest value?",
        "What is the label of the smallest bar?", "Which category has the smallest value?", "Which one is the lowest?",
        "Which category is the smallest?", "What category has the lowest bar?",
    ),
    "chart value": (
        "What is the value of {label}?", "What value does {label} have?", "What is the value of bar {label}?",
        "How much is {label}?", "Which value does bar {label} show?", "What number does {label} have?",
        "How high is {label}?", "What is the value for {label}?",
    ),
    "chart top value": (
        "What is the highest value?", "What is the largest value in the chart?",
        "What is the value of the largest bar?",
    ),
    "chart compare": (
        "Which is larger, {label} or {other}?", "Which bar is higher, {label} or {other}?",
        "Which is bigger, {label} or {other}?", "Which has the larger value, {label} or {other}?",
        "Of {label} and {other}, which is larger?", "Which has more, {label} or {other}?",
    ),
    "chart compare less": (
        "Which is smaller, {label} or {other}?", "Which bar is lower, {label} or {other}?",
        "Which has the smaller value, {label} or {other}?", "Which has less, {label} or {other}?",
    ),
    "chart is larger": (
        "Is {label} larger than {other}?", "Is bar {label} higher than bar {other}?",
        "Does {label} have a larger value than {other}?", "Is {label} bigger than {other}?",
        "Is {label} more than {other}?",
    ),
    "chart is smaller": (
        "Is {label} smaller than {other}?", "Is bar {label} lower than bar {other}?",
        "Does {label} have a smaller value than {other}?", "Is {label} less than {other}?",
    ),
    "chart has bar": (
        "Is there a bar {label}?", "Does the chart have a bar {label}?", "Is there a bar called {label}?",
        "Is {label} a bar in the chart?", "Do you see a bar with the label {label}?", "Does the chart show {label}?",
    ),
    "chart label": (
        "What is the label of {ref}?", "Which label does {ref} have?", "How is {ref} called?", "What is {ref} called?",
    ),
    "chart bar color": (
        "What color is bar {label}?", "What color is the bar {label}?", "What is the color of bar {label}?",
        "Which color does bar {label} have?", "In what color is {label}?", "What color is {label}?",
    ),
    "chart bars color": (
        "What color are the bars?", "What is the color of the bars?", "Which color do the bars have?",
        "Name the color of the bars.",
    ),
    "chart same color": (
        "Are all bars of the same color?", "Do all the bars have the same color?", "Is each bar of the same color?",
    ),
    "chart kind": (
        "What kind of picture is this?", "What is shown in the image?", "What is in the picture?", "What is this?",
    ),
    "chart direction": (
        "Are the bars horizontal?", "Do the bars lie on their side?", "Is this a horizontal bar chart?",
    ),
    "chart above count": ("How many bars are larger than {label}?", "How many bars are higher than {label}?"),
    "choice": (
        "\nAnswer with the letter.", "\nAnswer with the option's letter from the given choices directly.",
        "\nAnswer with the letter only.", "\nChoose one letter.", "\nWhich letter is right?", "",
        "\nReply with the letter of the right answer.",
    ),
    "caption": (
        "Describe the picture.", "Describe the image.", "What does the picture show?", "Describe what you see.",
        "Give a description of the image.",
    ),
}  # fmt: skip

# Phrases that fill the templates' gaps, apart from the names of things (see `references`).
OTHER_PHRASES = (
    "thing", "things", "letter", "number", "word", "text", "writing", "digit", "left", "right", "top", "bottom",
    "upper", "lower", "to the left of", "left of", "to the right of", "right of", "above", "below", "under", "first",
    "second", "third", "middle", "last", "the leftmost bar", "the rightmost bar", "the first bar", "the last bar",
    "the top bar", "the bottom bar", "bar chart", "The", "This",
)  # fmt: skip


def say(rng: Random, topic: str, /, **gaps: str) -> str:
    """One wording of `topic` with its gaps filled; what fills them keeps its case."""
    template = rng.choice(WORDINGS[topic])
    if "{Ref}" in template:
        gaps["Ref"] = gaps["ref"][0].upper() + gaps["ref"][1:]
    if rng.random() < LOWER_SHARE:
        template = template.lower().rstrip("?.") if rng.random() < 0.7 else template.lower()
    if rng.random() < BRITISH_SHARE:
        template = template.replace("olor", "olour")
    if any("gray" in gap for gap in gaps.values()) and rng.random() < GREY_SHARE:
        gaps = {name: re.sub(r"\bgray\b", "grey", gap) for name, gap in gaps.items()}
    return template.format(**gaps)


def closed_vocabulary() -> list[str]:
    """Every word of wordings, answers and captions, sorted, without digits and without words drawn into pictures."""
    phrases = [*SHAPES, *map(plural, SHAPES), *COLORS, *POSITIONS, *OPTION_LETTERS, YES, NO, UNKNOWN]
    phrases += ["grey", "a", "an", "the"]
    written = [wording for wordings in WORDINGS.values() for wording in wordings]
    for wording in (*written, *OTHER_PHRASES, *NAME_PHRASES):
        template = re.sub(r"\{\w*\}", " ", wording)
        phrases += [template, template.lower()]
        phrases += [re.sub(r"olor", "olour", version) for version in (template, template.lower())]
    phrases += CAPTION_PHRASES
    return sorted({word for phrase in phrases for word in words_of(phrase)})
