"""Tokenizers of the kinds that language models have, small and without a file."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama's: spaces are a character of their own, and what is not in the vocabulary is written in bytes."""
    merges = [("▁", "{"), ("r", "e"), ("re", "d"), ("{", '"'), ('"', ":")]
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁", *map("".join, merges)]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<0x00>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return with_specials(tokenizer, "</s>", "<image>")


def two_ends_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, as GPT-2's, with two tokens that end an answer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(['{"color":"red","count":10,"sure":true}'], trainer)
    return with_specials(tokenizer, "<end>", "<turn>", "<image>")


def with_specials(tokenizer: Tokenizer, *names: str) -> PreTrainedTokenizerFast:
    """The first ends answers."""
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in names])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=names[0], extra_special_tokens=list(names[1:]))
