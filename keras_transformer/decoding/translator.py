"""Text to text: tokenise, encode, search, detokenise."""

import collections
import concurrent.futures
import math
import os
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_transformer import arguments, progress
from keras_transformer.decoding import scoring, search
from keras_transformer.decoding.uncached import searchable
from keras_transformer.ops import beams
from keras_transformer.ops.compilation import (
    compile_with_weights,
    compiles_each_shape,
    runs_on_processor,
)
from keras_transformer.ops.crossentropy import token_nats
from keras_transformer.ops.labels import check_special_ids
from keras_transformer.ops.memory import keep_freed_memory

# Shapes are rounded up to these, so that a file of any lengths compiles a handful of times; sources
# to the coarse ones where those of a length are too few to repay the compilation of their own.
SOURCE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
COARSE_LENGTHS = (16, 32, 64, 128, 256, 512)
# Fewest tokens of a target that there is room for at first; for sources of over 21 half as many
# again as those.
ROOM = 32
ROWS = (1, 4, 16, 64, 128, 256)
# From so many products on, sentences of one width repay that more is compiled for them: a width of
# their own, and a search that goes on with a quarter of its rows once the others are done. Greedily
# these are about 30,000 sentences of 16 tokens with `tiny`, 700 of 24 with `base`; all that a
# translator was ever asked for count.
REPAYS_FROM = 1e12
BATCH_SIZE = "The default is 64; fewer sentences at once need less memory."


class Hypothesis(NamedTuple):
    """One translation: its text, its ids without the end, and its score (see `length_penalty`)."""

    text: str
    ids: list
    score: float


class Translator:
    """Translates text with a trained `Transformer`, or with several as one ensemble.

    The search is compiled once per shape and kept; it reads the models' weights anew at each call,
    so later training or averaging is seen. An ensemble chooses the next token by the mean of its
    members' probabilities.

    Args:
        model: a `Transformer`, or a list of them with one vocabulary; or other models with its
            `encode`, `start_cache`, `decode`, `source_embedding` and `target_embedding`. Any
            Keras model from `{"source_ids": [B, S], "target_ids": [B, T]}`, or from two such
            inputs in that order, to logits [B, T, V] translates too: without a cache, slowly.
        tokenizer: the vocabulary of the source, and of the target where they share one: a
            `Tokenizer`, or an object with `vocabulary_size`, `encode(texts)` (lists of ids),
            `decode(ids)` (a string), `pad_id` (0), `start_id` and `end_id`.
        target_tokenizer: the vocabulary of the target.
        seen: A `kt.text.Seen` of the training text. Then a source is read as the training text
            was, and what training never saw of it is said.

    Raises:
        ValueError: for a vocabulary larger than a model's, models of different vocabularies, a
            model of other inputs or outputs, a tokenizer without these methods, or a target's start
            or end that is padding.

    Example:

    ```python
    translator = Translator(model, tokenizer)
    translator.translate(["A man rides a horse ."], beam_size=4)  # a list of one string
    ```
    """

    # The paper's limit (section 6.1): source length + 50.
    EXTRA_LENGTH = 50

    def __init__(self, model, tokenizer, target_tokenizer=None, *, seen=None):
        for each in (tokenizer, target_tokenizer or tokenizer):
            _check_tokenizer(each)
        models = list(model) if isinstance(model, (list, tuple)) else [model]
        self.models = [searchable(each) for each in models]
        self.tokenizer = tokenizer
        self.target_tokenizer = target_tokenizer or tokenizer
        for each in self.models:
            for embedding, vocabulary in (
                (each.source_embedding, self.tokenizer),
                (each.target_embedding, self.target_tokenizer),
            ):
                size = embedding.vocabulary_size
                if size is not None and vocabulary.vocabulary_size > size:
                    raise ValueError(
                        f"The tokenizer has {vocabulary.vocabulary_size} pieces and the model "
                        f"{size}: this tokenizer is not the model's."
                    )
        target = self.target_tokenizer
        check_special_ids(target.start_id, target.end_id, target.pad_id)
        sizes = {each.target_embedding.vocabulary_size for each in self.models}
        if len(sizes) != 1:
            raise ValueError(
                f"An ensemble is one or more models of one vocabulary; got {len(self.models)} "
                f"with target vocabularies of {sorted(sizes)} pieces."
            )
        keep_freed_memory()
        self._searches = {}
        self._asked = collections.Counter()  # sentences so far of each width
        self.weights = None
        self.seen = seen
        self._said = set()  # kinds of remarks on sources

    def translate(self, texts, beam_size=4, length_penalty=0.6, batch_size=64):
        """The best translation of each text, in order; an empty or blank text gives an empty one.

        Args:
            texts: a list of strings.
            beam_size: hypotheses kept alive; 1 is greedy search.
            length_penalty: alpha of the GNMT penalty, 0.6 in the paper, or `"average"` for the
                log-probability per token.
            batch_size: most sentences translated at once.

        Returns:
            A list of strings.
        """
        n_best = self.n_best(texts, 1, beam_size, length_penalty, batch_size)
        return [hypotheses[0].text for hypotheses in n_best]

    def n_best(self, texts, n, beam_size=4, length_penalty=0.6, batch_size=64):
        """Like `translate`, with up to `n` hypotheses of each text, best first.

        Returns:
            A list of lists of `Hypothesis`.

        Raises:
            ValueError: for `n` above `beam_size`, other arguments out of range, anything but
                strings in `texts`, or a model whose probabilities are not finite.
        """
        texts = arguments.strings(texts, "translate")
        n, beam_size, batch_size = _checked(n, beam_size, batch_size)
        length_penalty = arguments.length_penalty(length_penalty)
        if n > beam_size:
            raise ValueError(
                f"A beam of {beam_size} has between 1 and {beam_size} results, asked for n={n}. "
                "Raise beam_size, or ask for fewer."
            )
        sources = self.encode_sources(texts)
        self._refuse_too_long(texts, sources)
        results = [[Hypothesis("", [], 0.0)] * n if not ids else None for ids in sources]

        def search(chosen, whole):
            given = [sources[i] for i in chosen]
            found = self._search(given, n, beam_size, length_penalty, whole)
            for i, hypotheses in zip(chosen, found, strict=True):
                results[i] = hypotheses
                done(len(sources[i]) if hypotheses is not None else 0)
            return [i for i, hypotheses in zip(chosen, found, strict=True) if hypotheses is None]

        left = [i for i, ids in enumerate(sources) if ids]
        self._asked.update(self._width(len(sources[i]) + 1) for i in left)
        # First with room for what most sentences need: room is filled with zeros at each call, and
        # on accelerators read whole at each step.
        with progress.work("translating", sum(map(len, sources)), "source tokens") as done:
            for whole in (False, True):
                # Longest first: the largest shape is met at once, and a batch is of one length.
                left.sort(key=lambda i: -len(sources[i]))
                batches = [left[i : i + batch_size] for i in range(0, len(left), batch_size)]
                found = _side_by_side(search, batches, whole)
                left = [i for unfinished in found for i in unfinished]
        if left:
            raise ValueError(
                f"Found no end of a translation of {texts[left[0]][:80]!r}: the model's "
                "probabilities are not finite. Are its weights those of a run that did not diverge?"
            )
        return results

    @property
    def compiled_shapes(self):
        """How many shapes of searches and scorings were compiled so far, an integer.

        Lengths and numbers of sentences are rounded up to few values, so that it stays small.
        """
        return sum(len(each.shapes) for each in self._searches.values())

    def encode_sources(self, texts):
        """Texts to lists of ids, without the end; a blank text has none.

        Of a run that knows what its training saw, spaces and invisible characters that it never
        saw are read as a space or left out. Says once, on stderr, what else it never saw.
        """
        seen = self.seen
        plain = texts if seen is None else [seen.plain(text) for text in texts]
        sources = self.tokenizer.encode([text if text.strip() else "" for text in plain])
        for text, ids in zip(texts, sources, strict=True):
            if seen is None or len(self._said) == len(seen.REMARKS):
                break
            for kind, remark in seen.remarks(text, ids, self.tokenizer, self._said).items():
                progress.say(f"warning: {remark} Said once.")
                self._said.add(kind)
        return sources

    def remarks(self, text):
        """What training never saw of a source text: a list of sentences.

        Empty if it saw the like, and for a model that does not come from a run.
        """
        if self.seen is None:
            return []
        [ids] = self.tokenizer.encode([self.seen.plain(text)])
        return list(self.seen.remarks(text, ids, self.tokenizer).values())

    def _refuse_too_long(self, texts, sources):
        """Raises an error that names the first text with more tokens than learned positions."""
        learned = self.learned_positions("source_embedding")
        for number, (text, ids) in enumerate(zip(texts, sources, strict=True), start=1):
            if learned is not None and len(ids) + 1 > learned:
                raise ValueError(
                    f"Text {number} of {len(texts)} has {len(ids) + 1} tokens, and the model has "
                    f"learned {learned} positions: shorten it, or split it into sentences. It "
                    f"begins {text[:80]!r}."
                )

    def _search(self, sources, n, beam_size, length_penalty, whole):
        """Hypotheses of each source; None where the room was too short, unless it is the whole."""
        width = self._width(max(map(len, sources)) + 1)
        repays = self._repays(self._asked[width] * beam_size, width)
        compiles = keras.backend.backend() != "torch"  # which has nothing to repay
        lengths = COARSE_LENGTHS if compiles and not repays else SOURCE_LENGTHS
        source_ids, max_lengths = self.batch(sources, lengths)
        rows, width = source_ids.shape
        longest = self._longest_target(width)
        length = longest if whole else min(longest, max(ROOM, width + width // 2))
        few = rows // 4 if rows >= 16 and repays else None
        run = self._compiled(n, beam_size, length_penalty, length, few)
        ids, scores, done = map(ops.convert_to_numpy, run(source_ids, max_lengths))
        end_id = self.target_tokenizer.end_id
        found = []
        for row in range(len(sources)):
            if not done[row]:
                found.append(None)
                continue
            hypotheses = []
            for row_ids, score in zip(ids[row][:n], scores[row][:n], strict=True):
                if score > search.IMPOSSIBLE / 2:
                    length = int(np.argmax(row_ids == end_id))
                    row_ids = row_ids[:length].tolist()
                    text = self.target_tokenizer.decode(row_ids)
                    hypotheses.append(Hypothesis(text, row_ids, float(score)))
            found.append(hypotheses)
        return found

    def _repays(self, sequences, width):
        """Whether so many sequences of one width repay that more is compiled for them.

        By the products that they take, if a target is about as long as its source: `REPAYS_FROM`.
        """
        weights = (weight for model in self.models for weight in model.weights)
        products = sequences * width * sum(math.prod(weight.shape) for weight in weights)
        return products >= REPAYS_FROM and runs_on_processor()

    def batch(self, sources, lengths=SOURCE_LENGTHS):
        """Lists of ids -> ids [B, S], ended and padded to a shape to compile, and limits [B].

        `lengths` are the widths S to choose from, ascending; sources longer than all of them are
        padded to a multiple of 256.
        """
        width = self._width(max(len(ids) for ids in sources) + 1, lengths)
        rows = next((r for r in ROWS if r >= len(sources)), len(sources))
        source_ids = np.zeros((rows, width), "int32")
        # Rows that only fill the shape end at once.
        max_lengths = np.ones((rows,), "int32")
        for row, ids in enumerate(sources):
            source_ids[row, : len(ids)] = ids
            source_ids[row, len(ids)] = self.tokenizer.end_id
            max_lengths[row] = self._longest_target(len(ids))
        return source_ids, max_lengths

    def _width(self, longest, lengths=SOURCE_LENGTHS, sides=("source_embedding",)):
        """The width to compile for rows of up to `longest` tokens, the end counted."""
        width = next((w for w in lengths if w >= longest), -(-longest // 256) * 256)
        learned = self.learned_positions(*sides)
        if learned is None:
            return width
        if longest > learned:
            raise ValueError(
                f"A sentence of {longest} tokens is longer than the {learned} positions that "
                "the model has learned: shorten it."
            )
        return min(width, learned)

    def _longest_target(self, source_length):
        learned = self.learned_positions("target_embedding")
        longest = source_length + self.EXTRA_LENGTH
        return longest if learned is None else min(longest, learned)

    def learned_positions(self, *embeddings):
        """The fewest positions that a member has; None for sinusoids, which have no limit."""
        limits = [getattr(each, name).max_length for each in self.models for name in embeddings]
        return min((limit for limit in limits if limit is not None), default=None)

    def _compiled(self, n, beam_size, length_penalty, length, few):
        key = (n, beam_size, length_penalty, length, few)
        if key not in self._searches:

            def run(source_ids, max_lengths):
                return self.search_ids(
                    source_ids, max_lengths, length, n, beam_size, length_penalty, few=few
                )

            # Batches at work side by side may come here at once, and are to have one function.
            self._searches.setdefault(key, compile_with_weights(run, *self.models))
        return self._searches[key]

    def search_ids(
        self,
        source_ids,
        max_lengths,
        length,
        n,
        beam_size,
        length_penalty,
        watched_loop=None,
        few=None,
    ):
        """Ids [B, S] and limits [B] -> ids [B, N, length], scores [B, N] and [B], whether it ended.

        The whole search as tensor operations, to be compiled or exported; the shape and `length`,
        the most tokens that there is room for, may be known only when it runs. `watched_loop` is
        the `while_loop` of `search.beam_search`, which then searches with one beam too; `few` is
        that of either search.
        """
        length_penalty = arguments.length_penalty(length_penalty)
        penalty = (
            search.average_penalty()
            if length_penalty == "average"
            else search.gnmt_penalty(length_penalty)
        )
        caches = []
        for model in self.models:
            memory, memory_mask = model.encode(source_ids)
            cache = model.start_cache(memory, length, beam_size)
            caches.append({**cache, "memory_mask": memory_mask})

        def step(ids, caches, index):
            logits, grown = [], []
            for model, cache in zip(self.models, caches, strict=True):
                mask = cache["memory_mask"]
                found, cache = model.decode(ids[:, None], None, mask, cache, index)
                logits.append(found[:, 0])
                grown.append({**cache, "memory_mask": mask})
            return _mean_of_probabilities(logits), grown

        ids = {
            "length": length,
            "start_id": self.target_tokenizer.start_id,
            "end_id": self.target_tokenizer.end_id,
            "pad_id": self.target_tokenizer.pad_id,
        }

        def keep(caches, rows):
            return [beams.of_sources(cache, rows, beam_size) for cache in caches]

        if beam_size == 1 and watched_loop is None:
            found, scores, done = search.greedy_search(
                step, caches, max_lengths, few=few, keep=keep, **ids
            )
            lengths = ops.sum(ops.cast(ops.not_equal(found, ids["pad_id"]), "int32"), axis=1)
            return found[:, None], (scores / penalty(lengths))[:, None], done
        return search.beam_search(
            step,
            caches,
            max_lengths,
            beam_size=beam_size,
            penalty=penalty,
            n_best=n,
            reorder=lambda caches, rows: [beams.of_sequences(cache, rows) for cache in caches],
            few=few,
            keep=keep,
            while_loop=watched_loop or ops.while_loop,
            **ids,
        )

    def score(self, pairs, batch_size=64):
        """How probable given translations are: `log P(target | source)`, teacher-forced.

        The sum of the log-probabilities of the target's tokens and of its end, in nats, without a
        length penalty: for filtering parallel text and ranking the translations of others. An
        empty or blank side counts as its end token alone.

        Args:
            pairs: a list of (source, target): strings, or for the target a list of ids without
                the end, as `Hypothesis.ids`.
            batch_size: most pairs scored at once; fewer where they are longer than 64 tokens.

        Returns:
            A list of (log-probability, number of target tokens with the end).

        Raises:
            ValueError: for anything but pairs, and for a sentence longer than learned positions.

        Example:

        ```python
        [(log_probability, tokens)] = translator.score([("A man rides .", "Ein Mann reitet .")])
        math.exp(-log_probability / tokens)  # the perplexity of this translation
        ```
        """
        found = self.token_log_probabilities(pairs, batch_size)
        return [(math.fsum(each), len(each)) for each in found]

    def token_log_probabilities(self, pairs, batch_size=64):
        """Like `score`, with the log-probability of each target token and, last, of the end.

        Returns:
            A list of lists of floats.
        """
        batch_size = arguments.whole_number("batch_size", batch_size, advice=BATCH_SIZE)
        pairs = list(pairs)
        ids = scoring.encode_pairs(pairs, self.encode_sources, self.target_tokenizer)
        if "score" not in self._searches:

            def run(sources, targets):
                logits = [scoring.logits(model, sources, targets) for model in self.models]
                return -token_nats(targets[:, 1:], _mean_of_probabilities(logits))

            self._searches["score"] = compile_with_weights(run, *self.models)
        found = [None] * len(ids)
        total = sum(len(target) + 1 for _, target in ids)
        with progress.work("scoring", total, "target tokens") as done:
            for chosen in scoring.in_batches(ids, batch_size):
                batch = [ids[i] for i in chosen]
                longest = max(len(side) for pair in batch for side in pair) + 1
                width = self._width(longest, sides=("source_embedding", "target_embedding"))
                rows = next((r for r in ROWS if r >= len(batch)), len(batch))
                arrays = scoring.arrays(batch, rows, width, self.tokenizer, self.target_tokenizer)
                scored = ops.convert_to_numpy(self._searches["score"](*arrays))
                for i, row in zip(chosen, scored[: len(chosen)], strict=True):
                    found[i] = row[: len(ids[i][1]) + 1].tolist()
                    done(len(found[i]))
        return found


def _checked(n, beam_size, batch_size):
    """The three as integers."""
    advice = "1 is greedy search; the paper has 4."
    beam_size = arguments.whole_number("beam_size", beam_size, advice=advice)
    batch_size = arguments.whole_number("batch_size", batch_size, advice=BATCH_SIZE)
    advice = f"A beam of {beam_size} has between 1 and {beam_size} results."
    return arguments.whole_number("n", n, advice=advice), beam_size, batch_size


def _check_tokenizer(tokenizer):
    needed = ("vocabulary_size", "pad_id", "start_id", "end_id")
    missing = [name for name in needed if not hasattr(tokenizer, name)]
    if not missing:
        return
    advice = "Train one with kt.text.train_tokenizer"
    if getattr(tokenizer, "proto", None):  # a SentencePiece tokenizer of keras_hub
        advice = "If its pad id is 0, and it has a start and an end, pass kt.text.Tokenizer(proto)"
    raise ValueError(
        f"A {type(tokenizer).__name__} has no {', '.join(missing)}. A tokenizer of a Translator "
        "has vocabulary_size, encode(texts) to lists of ids, decode(ids) to a string, pad_id "
        f"(0), start_id and end_id. {advice}, or wrap yours in a class with these."
    )


def _side_by_side(function, batches, *arguments):
    """`function(batch, *arguments)` of each batch, in order.

    A compiled search leaves cores idle between its larger products, so on the CPU there are as many
    at work as there are cores.
    """
    if len(batches) < 2 or keras.backend.backend() != "tensorflow" or compiles_each_shape():
        return [function(batch, *arguments) for batch in batches]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(min(len(batches), cores)) as pool:
        return list(pool.map(lambda batch: function(batch, *arguments), batches))


def _mean_of_probabilities(logits):
    """Logits [..., V] of the members of an ensemble -> those of its distribution."""
    if len(logits) == 1:
        return logits[0]
    log_probs = [ops.log_softmax(ops.cast(each, "float32"), axis=-1) for each in logits]
    return ops.logsumexp(ops.stack(log_probs), axis=0)  # softmax takes care of the sum's divisor
