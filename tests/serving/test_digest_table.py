"""Digests in a table, beside a dictionary that has the same."""

from __future__ import annotations

import random

from flashsloth.serving.batch_lines import DIGEST_BYTES, key_of
from flashsloth.serving.digest_table import DigestTable


def test_it_finds_what_a_dictionary_finds() -> None:
    draw = random.Random(0)
    halves = [draw.randbytes(8) for _ in range(12)] + [bytes(8), b"\xff" * 8]  # so that many keys begin alike
    known, table = {}, DigestTable()
    while len(known) < 120:
        key = draw.choice(halves) + draw.choice(halves)
        if key not in known:
            known[key] = draw.randbytes(DIGEST_BYTES)
            table.add(key, known[key])
    assert len(table) == 120
    assert not table.repeated()
    for high in halves:
        for low in halves:
            assert table.find(high + low) == known.get(high + low)
    assert table.find(draw.randbytes(DIGEST_BYTES)) is None


def test_keys_that_come_twice_are_named() -> None:
    table = DigestTable()
    assert table.repeated() == set()
    assert table.find(key_of("a")) is None
    for name in "abcabd":
        table.add(key_of(name), bytes(DIGEST_BYTES))
    assert table.repeated() == {key_of("a"), key_of("b")}
    table.add(key_of("c"), bytes(DIGEST_BYTES))
    assert key_of("c") in table.repeated()
