"""Prompts that share a prefix: keys and values before a question are computed once, and used by whoever asks next.

In: sequences that start. Out: the same, each with what is known of its prefix: in the row of a sequence that runs, or
kept in a :class:`PictureCache` from an earlier one. A prefix is what stands before the last question: the system text
and the pictures, or a conversation's earlier turns.
"""

from __future__ import annotations

from collections.abc import Hashable

from flashsloth.inference.engine.model_runner import ModelRunner
from flashsloth.inference.engine.scheduler import Sequence
from flashsloth.inference.kv_cache import LayerStates
from flashsloth.inference.picture_cache import PictureCache


class PrefixCache:
    """Finds and keeps prefixes.

    Args:
        kept: where keys and values are kept.

    Attributes:
        weights: the state of the model's weights that prefixes are kept and found for.
    """

    def __init__(self, kept: PictureCache) -> None:
        self._kept = kept
        self.weights = 0

    def split(self, newcomers: list[Sequence], runner: ModelRunner) -> tuple[list[Sequence], list[Sequence]]:
        """Those whose prompt is run now, and those that follow, since one of the others computes their prefix.

        The sequences of a request have the same prompt, which is run for the first one, with the others as siblings.
        """
        if not runner.shares_prefixes:
            return newcomers, []
        firsts: dict[int, Sequence] = {}
        for one in newcomers:
            first = firsts.setdefault(one.request_id, one)
            if first is not one:
                first.siblings.append(one)
        leaders: list[Sequence] = []
        followers: list[Sequence] = []
        leading: dict[Hashable, Sequence] = {}
        for one in self.find(list(firsts.values()), runner):
            if one.leader is not None or one.known_length >= one.prefix_length:
                leaders.append(one)  # all of its prefix is known
            elif (leader := leading.setdefault(one.prefix, one)) is one:
                leaders.append(one)
            else:
                leader.shared = True
                followers.append(one)
        return leaders, followers

    def find(self, newcomers: list[Sequence], runner: ModelRunner) -> list[Sequence]:
        """Newcomers with what is known of their prefixes."""
        if newcomers and runner.shares_prefixes:
            rows = {one.prefix: one for one in runner.sequences}
            for one in newcomers:
                if one.states is None and one.prefix_length:
                    one.leader = rows.get(one.prefix)
                    one.shared = one.leader is not None
                    if one.leader is None:
                        one.states = self._longest_kept(one)
        return newcomers

    def keep(self, sequence: Sequence, runner: ModelRunner) -> None:
        """Keep a sequence's prefix, if it is new; its pass is over and went well."""
        if not runner.shares_prefixes or not sequence.prefix_length:
            return
        if not (sequence.request.keeps_prefix or sequence.shared):
            return
        key = self._key(sequence, sequence.prefix_length)
        size = sequence.prefix_length * runner.position_bytes
        if size <= self._kept.limit and self._kept.get(key) is None:
            self._kept.put(key, runner.states(sequence, sequence.prefix_length), size)

    def _longest_kept(self, sequence: Sequence) -> LayerStates | None:
        """What was kept before a sequence's last question, or before an earlier one's."""
        for stop in reversed(sequence.request.prompt.question_starts()):
            if stop and (states := self._kept.get(self._key(sequence, stop))) is not None:
                kept: LayerStates = states
                return kept
        return None

    def _key(self, sequence: Sequence, stop: int) -> Hashable:
        return "prefix", self.weights, sequence.prefix_until(stop)
