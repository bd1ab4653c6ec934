"""How far two texts are apart, and ANLS, which DocVQA is scored with.

Biten et al., "Scene Text Visual Question Answering" (2019): an answer counts for how much of it is right, and for
nothing below a threshold; one that is exactly at it counts.
"""

from __future__ import annotations

from collections.abc import Sequence

ANLS_THRESHOLD = 0.5


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements of single characters that make one text the other (Levenshtein)."""
    row = list(range(len(other) + 1))  # from the first 0, 1, 2, ... characters of `one` to each beginning of `other`
    for number, character in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for place, wanted in enumerate(other, 1):
            diagonal, row[place] = (
                row[place],
                min(diagonal + (character != wanted), row[place] + 1, row[place - 1] + 1),
            )
    return row[-1]


def anls(answer: str, truths: Sequence[str]) -> float:
    """0 to 1: how near an answer is to the nearest truth; case and runs of spaces do not count.

    The distance is of texts with single spaces, the length of the texts as they are, as in lmms-eval.
    """
    said = " ".join(answer.lower().split())
    shares = []
    for truth in truths:
        length = max(len(truth.upper()), len(answer.upper()))
        shares.append(edit_distance(" ".join(truth.lower().split()), said) / length if length else 0.0)
    nearness = 1 - min(shares)
    return nearness if nearness >= ANLS_THRESHOLD else 0.0
