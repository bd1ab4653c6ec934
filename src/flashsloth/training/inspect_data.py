"""A whole file of samples, looked through before a GPU hour is spent on it; and one sample as the model will meet it.

In: a dataset of records, and what samples are written down with. Out: a :class:`CheckReport`: what training would leave
out, by the code that leaves it out, and what it would take but its maker may not have meant.

Samples are looked at in worker processes, some hundred at a time. Pictures are opened, unless only their presence is
asked for. Whether a sample is too long is a matter of tokens, but few need the tokenizer: a byte-level one makes at
most one token of a byte, so a sample of fewer bytes than `max_length` has room for cannot be too long. With any other
tokenizer every sample is written down.

Of one encoded row, its runs of tokens that are treated alike (learned, pictures, questions, queries), with their text.
Nothing is simplified: a token that is two things at once is a run of its own, so a wrong mask is seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from flashsloth.media import PictureError, open_picture
from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.planning.machine import usable_cores
from flashsloth.training.data.conversation import PLACEHOLDER, Conversation, messages_of
from flashsloth.training.data.layouts import check_record, identity
from flashsloth.training.data.records import RecordData
from flashsloth.training.data.sample import BadSampleError, Sample, Where
from flashsloth.training.data.workers import WorkerPool
from flashsloth.training.dataloader import SampleEncoder
from flashsloth.training.packing import Row

CHUNK_SAMPLES = 256
REMARKS = {
    "cut_conversation": "begins with an answer, which is left out",
    "empty_answer": "an empty answer among others",
    "stray_placeholder": f"{PLACEHOLDER} where no picture stands, taken as text",
    "duplicate_id": "the same id as an earlier sample",
    "duplicate_content": "the same texts and pictures as an earlier sample",
}
"""What training takes as it is, though it may not be meant -> the same in words."""
DIGEST_BYTES = 8
NO_DIGEST = 0
PROMPT, SUPERVISED, PICTURE, QUESTION, QUERIES = "prompt", "supervised", "picture", "question", "queries"
MEANINGS = {
    PROMPT: "read, not learned",
    PICTURE: "visual tokens",
    QUESTION: "what the queries of its turn read",
    QUERIES: "query tokens of a turn",
    SUPERVISED: "learned: the loss stands here",
}
"""What tokens can be -> the same in words, in the order of a legend."""


@dataclass(frozen=True)
class Finding:
    """Something about one sample; its fields are those of a line of `bad_samples.jsonl`."""

    source: str
    index: int
    id: str
    kind: str
    reason: str


@dataclass
class CheckReport:
    """What a file holds and what is wrong with it.

    Attributes:
        samples, with_pictures, pictures, answers: how many there are.
        bad: samples that training leaves out.
        tokenized: samples whose length was counted, not bounded.
        layouts: what samples were read as, in words -> how many.
        pictures_opened: whether pictures were opened, or only looked for.
        counts: findings of each kind.
        findings: all of them, in the order of the file.
    """

    samples: int = 0
    with_pictures: int = 0
    pictures: int = 0
    answers: int = 0
    bad: int = 0
    tokenized: int = 0
    pictures_opened: bool = True
    layouts: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def bad_fraction(self) -> float:
        return self.bad / self.samples if self.samples else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "bad_fraction": self.bad_fraction}


class _Looked(NamedTuple):
    """What a chunk of samples held; digests are uint64 [n], :data:`NO_DIGEST` where there is none."""

    findings: list[Finding]
    tallies: Counter[str]
    layouts: Counter[str]
    ids: np.ndarray
    contents: np.ndarray


class Examiner:
    """Looks at samples one by one; travels to worker processes.

    Args:
        data: the samples.
        encoder: what training would write them down with.
        open_pictures: False to look only whether they are there.
    """

    def __init__(self, data: RecordData, encoder: SampleEncoder, open_pictures: bool = True) -> None:
        self.data, self.encoder, self.open_pictures = data, encoder, open_pictures
        self.base_bytes, self.turn_bytes = _template_bytes(encoder)
        self.is_bounded = _is_byte_level(encoder.processor.tokenizer)

    def chunk(self, numbers: range) -> _Looked:
        """Look at some samples."""
        looked = _Looked([], Counter(), Counter(), np.zeros(len(numbers), np.uint64), np.zeros(len(numbers), np.uint64))
        for place, index in enumerate(numbers):
            record: Any = None
            try:
                record = self.data.record(index)
                self._look(index, record, place, looked)
            except (BadSampleError, PictureError) as error:
                looked.tallies["bad"] += 1
                kind = error.kind if isinstance(error, BadSampleError) else "unreadable_picture"
                reason = error.reason if isinstance(error, BadSampleError) else str(error)
                looked.findings.append(_finding(self.data.where(index, record), kind, reason))
        looked.tallies["samples"] += len(numbers)
        return looked

    def _look(self, index: int, record: Any, place: int, looked: _Looked) -> None:
        record = check_record(record)
        if (found := identity(record)) is not None:
            looked.ids[place] = _digest(found.encode("utf-8"))
        said = self.data.conversation(index, record)
        texts = [turn.text for turn in said.turns]
        looked.layouts[self.data.layout or said.layout] += 1
        words = repr([tuple(turn) for turn in said.turns]).encode()
        looked.contents[place] = _digest(words, *map(_picture_bytes, said.pictures))
        looked.tallies["pictures"] += len(said.pictures)
        looked.tallies["with_pictures"] += bool(said.pictures)
        looked.tallies["answers"] += len(said.turns) // 2
        for kind, reason in _remarks(said, texts):
            looked.findings.append(_finding(self.data.where(index, record), kind, reason))
        for picture in said.pictures:
            opened = self.data.find(picture)
            if self.open_pictures:
                open_picture(opened)
        if not self.is_bounded or self._most_tokens(texts, len(said.pictures)) > self.encoder.max_length:
            looked.tallies["tokenized"] += 1
            self.encoder.text(Sample(messages_of(said)))

    def _most_tokens(self, texts: list[str], pictures: int) -> int:
        """A bound on a sample's tokens: one for every byte, and the placeholders."""
        processor = self.encoder.processor
        written = self.base_bytes + self.turn_bytes * len(texts) + sum([len(text.encode()) for text in texts])
        return written + pictures * (processor.num_image_tokens + 1) + len(texts) * processor.num_query_tokens


def check(
    examiner: Examiner, workers: int | None = None, advance: Callable[[int], None] = lambda done: None
) -> CheckReport:
    """Look at every sample of a file.

    Args:
        examiner: what looks.
        workers: processes; None for one a core, 0 for this one alone.
        advance: called with how many more samples are done.
    """
    count = len(examiner.data)
    chunks = [range(start, min(start + CHUNK_SAMPLES, count)) for start in range(0, count, CHUNK_SAMPLES)]
    tallies: Counter[str] = Counter()
    layouts: Counter[str] = Counter()
    findings: list[Finding] = []
    ids, contents = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    wanted = usable_cores() if workers is None else workers
    pool = WorkerPool(examiner.chunk, min(wanted, len(chunks)), patience=math.inf)
    with closing(pool):
        for numbers, looked in zip(chunks, pool.batches(chunks), strict=True):
            tallies += looked.tallies
            layouts += looked.layouts
            findings += looked.findings
            ids[numbers.start : numbers.stop] = looked.ids
            contents[numbers.start : numbers.stop] = looked.contents
            advance(len(numbers))
    for kind, digests in (("duplicate_id", ids), ("duplicate_content", contents)):
        findings += _repeated(examiner.data, digests, kind)
    findings.sort(key=lambda found: (found.source, found.index))
    numbers_of = {
        name: tallies[name] for name in ("samples", "with_pictures", "pictures", "answers", "bad", "tokenized")
    }
    counts = dict(Counter(found.kind for found in findings).most_common())
    return CheckReport(
        **numbers_of,
        pictures_opened=examiner.open_pictures,
        layouts=dict(layouts.most_common()),
        counts=counts,
        findings=findings,
    )


def _finding(where: Where, kind: str, reason: str) -> Finding:
    return Finding(where.source, where.index, where.id, kind, reason)


def _remarks(said: Conversation, texts: list[str]) -> Iterator[tuple[str, str]]:
    """What training takes as it is: (kind, reason)."""
    if said.cut:
        yield "cut_conversation", f"{said.cut} turn before the first question is left out"
    for place, (turn, text) in enumerate(zip(said.turns, texts, strict=True)):
        if turn.role == "assistant" and not text.strip():
            yield "empty_answer", f"the answer in turn {place} is empty"
            break
    for place, text in enumerate(texts):
        if PLACEHOLDER in text:
            yield "stray_placeholder", f"turn {place} says {PLACEHOLDER} where no picture stands; it stays text"
            break


def _repeated(data: RecordData, digests: np.ndarray, kind: str) -> Iterator[Finding]:
    """A finding for every sample whose digest an earlier one has."""
    real = np.flatnonzero(digests != NO_DIGEST)
    _, first, inverse = np.unique(digests[real], return_index=True, return_inverse=True)
    for again in np.flatnonzero(first[inverse] != np.arange(len(real))):
        earlier, index = int(real[first[inverse[again]]]), int(real[again])
        before = _where(data, earlier)
        yield _finding(_where(data, index), kind, f"{REMARKS[kind]}, {before.index} (id {before.id!r})")


def _where(data: RecordData, index: int) -> Where:
    try:
        return data.where(index, data.record(index))
    except BadSampleError:
        return data.where(index, None)


def _picture_bytes(picture: Any) -> bytes:
    if isinstance(picture, bytes):
        return picture
    return (picture if isinstance(picture, str) else type(picture).__name__).encode("utf-8", "surrogatepass")


def _digest(*contents: bytes) -> int:
    """A number of all of them that is not :data:`NO_DIGEST`."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for content in contents:
        digest.update(content)
    return int.from_bytes(digest.digest(), "little") or 1


def _template_bytes(encoder: SampleEncoder) -> tuple[int, int]:
    """Bytes that the template writes around the texts: of a conversation, and of each turn at most."""
    turn: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": ""},
    ]
    lengths = [
        len(
            encoder.processor.apply_chat_template(
                turn * turns, chat_template=encoder.template, space_before_queries=encoder.space_before_queries
            ).encode()
        )
        for turns in (1, 2)
    ]
    a_pair = lengths[1] - lengths[0]
    return lengths[0], a_pair


def _is_byte_level(tokenizer: Any) -> bool:
    """Whether a tokenizer makes tokens of bytes, so that there are at most as many."""
    state = tokenizer.backend_tokenizer
    return "ByteLevel" in repr(state.pre_tokenizer) and state.normalizer is None


@dataclass(frozen=True)
class Run:
    """Tokens that stand together and are treated alike.

    Attributes:
        start, stop: positions, the last one not included.
        roles: keys of :data:`MEANINGS`; more than one is a mistake in a mask.
        numbers: which picture and which turn, 0 where there is none.
        text: the tokens' text; of placeholders, nothing.
    """

    start: int
    stop: int
    roles: tuple[str, ...]
    numbers: tuple[int, int]
    text: str

    @property
    def name(self) -> str:
        """Such as `picture 1` or `question 2`."""
        picture, turn = self.numbers
        number = {PICTURE: picture, QUESTION: turn, QUERIES: turn}
        return " + ".join(f"{role} {number[role]}" if role in number else role for role in self.roles)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"start": self.start, "stop": self.stop, "is": self.name, "text": self.text}


def runs_of(row: Row, processor: FlashSlothProcessor) -> list[Run]:
    """The runs of a row, from its first token to its last."""
    kinds = list(map(_kind, *(row[name] for name in ("image_index", "question_turn", "query_turn", "labels"))))
    runs = []
    position = 0
    for (roles, numbers), group in groupby(kinds):
        start, position = position, position + len(list(group))
        placeholders = {PICTURE, QUERIES} & set(roles)
        ids = row["input_ids"][start:position]
        text = "" if placeholders else processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        runs.append(Run(start, position, roles, numbers, text))
    return runs


def written(runs: list[Run]) -> str:
    """The prompt as the template writes it, a placeholder for each picture and query, what is learned in ⟦ and ⟧."""
    text = ""
    for run in runs:
        if PICTURE in run.roles or QUERIES in run.roles:
            text += IMAGE_TOKEN if PICTURE in run.roles else QUERY_TOKEN
        else:
            text += f"⟦{run.text}⟧" if SUPERVISED in run.roles else run.text
    return text


def _kind(picture: int, question: int, query: int, label: int) -> tuple[tuple[str, ...], tuple[int, int]]:
    """What one token is, and of which picture and turn."""
    present = {PICTURE: picture, QUESTION: question, QUERIES: query, SUPERVISED: label != IGNORED_LABEL}
    roles = tuple(role for role, there in present.items() if there)
    return roles if roles else (PROMPT,), (picture, question or query)
