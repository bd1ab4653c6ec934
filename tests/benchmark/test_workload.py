"""The table of subjects and suites holds together."""

from __future__ import annotations

import pytest

from flashsloth.benchmark.models import PEERS
from flashsloth.benchmark.workload import PEER_NAMES, SUBJECTS, SUITES, find_subjects, find_suite
from flashsloth.errors import BenchmarkError


def test_every_suite_names_known_subjects_once() -> None:
    for suite in SUITES.values():
        assert find_subjects(suite.names)
        assert set(suite.batched) <= set(SUBJECTS)


def test_the_full_suite_has_every_peer_and_every_precision() -> None:
    names = find_suite("cpu").names
    assert set(PEER_NAMES) == set(PEERS) <= set(names)
    assert {SUBJECTS[name].precision for name in names} == {"bfloat16", "float32", "int8", "int4"}


def test_other_forms_name_a_subject() -> None:
    assert {spec.varies for spec in SUBJECTS.values()} - {None} <= set(SUBJECTS)


def test_bytes_are_those_of_the_precision_computed_in() -> None:
    assert SUBJECTS["flashsloth-f32"].bytes == 2 * SUBJECTS["flashsloth"].bytes
    assert SUBJECTS["flashsloth-int4"].bytes == SUBJECTS["flashsloth"].bytes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["flashsloth", "gpt"], "there is no subject 'gpt'; expected some of flashsloth,"),
        ([], "no subject is named"),
        (["nano", "nano"], "'nano' is named twice"),
    ],
)
def test_unknown_subjects_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        find_subjects(names)


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="there is no suite 'tpu'; expected one of cpu, gpu, quick"):
        find_suite("tpu")
