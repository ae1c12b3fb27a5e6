"""Random other pieces for the same words: BPE-dropout and subword regularization.

SentencePiece can draw them too, but its draws differ between processes even with a seed. A resumed
training must see the batches that it would have seen, so here NumPy's generators draw, for all
words of a corpus at once.
"""

import itertools
from typing import Any

import numpy as np

_TEXT = 1  # the type of a piece that stands for text, in SentencePiece's format
_SYMBOLS_AT_A_TIME = 1 << 20


class Segmenter:
    """Cuts the words of an encoded corpus into random pieces, again and again.

    A word is a piece that starts with "▁" and the pieces up to the next "▁". In vocabularies of
    `train_tokenizer` no piece reaches from one word into another, so each word is cut by itself.

    Args:
        model_proto: The bytes of a SentencePiece model of kind "bpe" or "unigram".
        ids, offsets: Integer arrays [N] and [L + 1]: sentence i is `ids[offsets[i]:offsets[i+1]]`.
        alpha: See `Tokenizer.sample`.

    Raises:
        ValueError: If `alpha` is out of its range, or the vocabulary is of another kind.
    """

    def __init__(
        self, model_proto: bytes, ids: np.ndarray, offsets: np.ndarray, alpha: float
    ) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {alpha}")
        vocabulary = _Vocabulary(model_proto)
        if vocabulary.kind not in _KINDS:
            raise ValueError(
                "only bpe and unigram vocabularies can be sampled from; this one cuts a text in "
                'one way only: train one with model_type="bpe"'
            )
        starts = vocabulary.starts_word[ids]
        starts[offsets[:-1][np.diff(offsets) > 0]] = True
        begins = np.flatnonzero(starts)
        self._sentence_words = np.searchsorted(begins, offsets)  # first word of each, and the end
        distinct: dict[bytes, int] = {}
        ids = np.ascontiguousarray(ids, np.int32)
        bounds = itertools.pairwise([*begins.tolist(), len(ids)])
        spans = (ids[a:b].tobytes() for a, b in bounds if b > a)
        self._words = np.fromiter(
            (distinct.setdefault(span, len(distinct)) for span in spans), np.int64, len(begins)
        )
        spelled = [vocabulary.spell(np.frombuffer(span, np.int32).tolist()) for span in distinct]
        self._lengths = np.array([len(word) for word in spelled], np.int64)  # in symbols
        self._draw = _KINDS[vocabulary.kind](vocabulary, spelled, alpha)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws a segmentation: `ids, offsets` like those of the corpus, int32 and int64.

        The same state of `rng` gives the same pieces.
        """
        # A word has at most as many pieces as symbols, so it gets that much room; -1 is unused.
        begins = np.cumsum(self._lengths[self._words]) - self._lengths[self._words]
        pieces = np.full(self._lengths[self._words].sum(), -1, np.int32)
        self._draw(self._words, begins, pieces, rng)
        counts = np.concatenate([[0], np.cumsum(pieces >= 0)])
        return pieces[pieces >= 0], counts[np.append(begins, len(pieces))][self._sentence_words]


class _Vocabulary:
    def __init__(self, model_proto):
        from sentencepiece import sentencepiece_model_pb2

        model = sentencepiece_model_pb2.ModelProto.FromString(model_proto)
        self.kind = model.trainer_spec.ModelType.Name(model.trainer_spec.model_type)
        self.scores = np.array([piece.score for piece in model.pieces])
        self.texts = [piece.piece if piece.type == _TEXT else "\0" for piece in model.pieces]
        self.starts_word = np.array([text.startswith("▁") for text in self.texts])
        self.ids = {text: id for id, text in enumerate(self.texts) if text != "\0"}

    def spell(self, ids):
        """Ids -> the ids of their characters. An id that is no text, such as a byte, stays."""
        symbols = []
        for id in ids:
            characters = [self.ids.get(character) for character in self.texts[id]]
            symbols += [id] if None in characters else characters
        return symbols


class _BpeDropout:
    """Merges the symbols of all words, and leaves out each merge with probability alpha.

    As in BPE, the next pair is the one whose union is the piece of the best score, the leftmost of
    equals. A merge that was left out is tried again only when one of its sides has changed.
    """

    def __init__(self, vocabulary, spelled, alpha):
        self._alpha = alpha
        lengths = np.array([len(word) for word in spelled], np.int64)
        self._lengths, self._begins = lengths, np.cumsum(lengths) - lengths
        self._symbols = np.fromiter(itertools.chain.from_iterable(spelled), np.int64)
        self._size = len(vocabulary.texts)
        merges = {}
        for text, id in vocabulary.ids.items():
            for cut in range(1, len(text)):
                left, right = vocabulary.ids.get(text[:cut]), vocabulary.ids.get(text[cut:])
                if left is not None and right is not None:
                    merges[left * self._size + right] = id
        self._pairs = np.array(sorted(merges), np.int64)
        self._unions = np.array([merges[pair] for pair in self._pairs.tolist()], np.int64)
        self._scores = vocabulary.scores[self._unions]

    def __call__(self, words, begins, pieces, rng):
        lengths = self._lengths[words]
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            columns = np.arange(length)
            for rows in np.array_split(members, -(-members.size * length // _SYMBOLS_AT_A_TIME)):
                symbols = self._symbols[self._begins[words[rows], None] + columns]
                self._merge(symbols, rng)
                pieces[begins[rows, None] + columns] = symbols

    def _merge(self, symbols, rng):
        """Merges integers [W, length] in place. Freed places at a row's end become -1."""
        rows, work = np.arange(len(symbols)), symbols.copy()
        unions, scores = self._look_up(work[:, :-1], work[:, 1:])
        while scores.size:
            best = scores.argmax(axis=1)
            open_ = scores[np.arange(len(rows)), best] > -np.inf
            if not open_.all():
                symbols[rows[~open_]] = work[~open_]
                rows, work, best = rows[open_], work[open_], best[open_]
                unions, scores = unions[open_], scores[open_]
            merged = rng.random(len(rows)) >= self._alpha
            scores[~merged, best[~merged]] = -np.inf
            at, best = np.flatnonzero(merged), best[merged]
            work[at, best] = unions[at, best]
            work[at] = _without(work[at], best + 1, -1)
            unions[at], scores[at] = (
                _without(unions[at], best, -1),
                _without(scores[at], best, -np.inf),
            )
            for left in (best - 1, best):  # the pairs with the new symbol
                real = (left >= 0) & (left < scores.shape[1])
                r, c = at[real], left[real]
                unions[r, c], scores[r, c] = self._look_up(work[r, c], work[r, c + 1])

    def _look_up(self, left, right):
        """The union of each pair of symbols and its score; -inf if there is no such piece."""
        if not len(self._pairs):
            return np.full(left.shape, -1), np.full(left.shape, -np.inf)
        pairs = left * self._size + right
        places = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        found = (self._pairs[places] == pairs) & (right >= 0)
        return self._unions[places], np.where(found, self._scores[places], -np.inf)


def _without(array, columns, fill):
    """Removes one element per row, that of its column; `fill` follows at the end."""
    width = array.shape[1]
    places = np.arange(width) + (np.arange(width) >= columns[:, None])
    filled = np.concatenate([array, np.full((len(array), 1), fill, array.dtype)], axis=1)
    return np.take_along_axis(filled, places, axis=1)


class _UnigramLattices:
    """Draws segmentations with probability proportional to (product of their pieces' own) ^ alpha.

    Forward filtering, backward sampling: nodes are the places between symbols, and an edge is a
    piece. From a word's end, `__call__` walks back along edges, which it draws in proportion to the
    sum over all paths that lead to them.
    """

    def __init__(self, vocabulary, spelled, alpha):
        longest = max(map(len, vocabulary.texts))
        self._lengths = np.array([len(word) for word in spelled], np.int64)
        self._firsts = np.cumsum(self._lengths + 1) - self._lengths - 1  # node before each word
        keys, origins, ids = [], [], []
        for first, word in zip(self._firsts.tolist(), spelled, strict=True):
            log_sums = np.zeros(len(word) + 1)
            for end in range(1, len(word) + 1):
                starts, edges = [end - 1], [word[end - 1]]
                text = vocabulary.texts[word[end - 1]]
                for start in range(end - 2, max(0, end - longest) - 1, -1):
                    text = vocabulary.texts[word[start]] + text
                    if (id := vocabulary.ids.get(text)) is not None:
                        starts.append(start)
                        edges.append(id)
                weights = log_sums[starts] + alpha * vocabulary.scores[edges]
                log_sums[end] = np.logaddexp.reduce(weights)
                shares = np.cumsum(np.exp(weights - log_sums[end]))
                shares[-1] = 1.0
                # Sorted over all nodes: the key of an edge is its end node + cumulative share.
                keys.append(first + end + shares)
                origins += [first + start for start in starts]
                ids += edges
        self._keys = np.concatenate(keys) if keys else np.zeros(0)
        self._origins, self._ids = np.array(origins, np.int64), np.array(ids, np.int32)

    def __call__(self, words, begins, pieces, rng):
        firsts = self._firsts[words]
        nodes = firsts + self._lengths[words]
        while len(nodes):
            edges = np.searchsorted(self._keys, nodes + rng.random(len(nodes)), side="right")
            nodes = self._origins[edges]
            pieces[begins + nodes - firsts] = self._ids[edges]
            inside = nodes > firsts
            nodes, firsts, begins = nodes[inside], firsts[inside], begins[inside]


_KINDS: dict[str, Any] = {"BPE": _BpeDropout, "UNIGRAM": _UnigramLattices}
