"""Vocabularies: trained on the texts of the train split, or pruned from a larger one to these texts."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

PADDING, UNKNOWN = "[PAD]", "[UNK]"
UNUSED: Final = "[unused"  # beginning of the names of BERT's tokens that occur in no text


def train_tokenizer(texts: Sequence[str], vocabulary: int = 8000) -> Tokenizer:
    """Train a WordPiece vocabulary (lower case, without accents); the same texts give the same vocabulary."""
    tokenizer = _word_pieces(models.WordPiece(unk_token=UNKNOWN))
    # The trainer numbers the pieces that continue a word in the order of a hash table, which differs in each run, and breaks
    # ties by these numbers. Special tokens are numbered in the given order, so the pieces are special tokens of the trainer alone.
    pieces = sorted({f"##{character}" for text in texts for word in _words(tokenizer, text) for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[PADDING, UNKNOWN, *pieces], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = _word_pieces(models.WordPiece(tokenizer.get_vocab(), unk_token=UNKNOWN))
    trained.add_special_tokens([PADDING, UNKNOWN])
    return trained


def prune(layout: Mapping[str, Any], texts: Iterable[str], frequent: int) -> tuple[Tokenizer, list[int]]:
    """Prune a tokenizer.json to the tokens of `texts` and the most frequent ones; return it with its tokens' old numbers.

    The most frequent tokens are those with numbers below `frequent`, because BERT and Llama number theirs roughly by frequency,
    except BERT's unused ones. `texts` are cut into the same tokens as before. Single characters always stay, so that any word can
    still be spelt out. For WordPiece and BPE without a special case for the beginning or end of words.
    """
    whole = Tokenizer.from_str(json.dumps({**layout, "padding": None, "truncation": None}))
    vocabulary: dict[str, int] = layout["model"]["vocab"]
    special = {added["content"] for added in layout["added_tokens"]}
    kept = {token for text in texts for token in whole.encode(text).tokens}
    kept |= {
        token
        for token, number in vocabulary.items()
        if (number < frequent and not token.startswith(UNUSED))
        or len(token.removeprefix("##")) == 1
        or token in special
    }
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
        for merge in layout["model"].get("merges", ())
    ]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    kept |= {piece for token in kept if ranks for piece in _derivation(token, ranks) if piece in vocabulary}
    tokens = sorted(kept, key=vocabulary.__getitem__)
    pruned = _renumbered(layout, tokens)
    if merges:
        pruned["model"]["merges"] = [[a, b] for a, b in merges if {a, b, a + b} <= kept]
    return Tokenizer.from_str(json.dumps(pruned)), [vocabulary[token] for token in tokens]


def _derivation(token: str, ranks: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    """Yield every piece that byte-pair encoding makes on its way from characters to `token`.

    It makes the same pieces wherever the token is, because no merge crosses the ends of a token.
    """
    pieces = list(token)
    yield from pieces
    while merges := [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]:
        _, at = min(merges)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        yield pieces[at]


def _renumbered(layout: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """Return a tokenizer.json with only these tokens, renumbered."""
    numbers = {token: number for number, token in enumerate(tokens)}
    added = [{**token, "id": numbers[token["content"]]} for token in layout["added_tokens"]]
    processor = layout["post_processor"]
    if processor is not None:
        special = {
            name: {**entry, "ids": [numbers[token] for token in entry["tokens"]]}
            for name, entry in processor.get("special_tokens", {}).items()
        }
        processor = {**processor, "special_tokens": special}
    return {
        **layout,
        "padding": None,
        "truncation": None,
        "added_tokens": added,
        "post_processor": processor,
        "model": {**layout["model"], "vocab": numbers},
    }


def _word_pieces(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
