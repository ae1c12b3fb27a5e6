"""Text to ids and back: one SentencePiece vocabulary that owns its special ids."""

import hashlib
import itertools
import os
import re
import unicodedata
from pathlib import Path

import numpy as np

from keras_transformer import arguments, progress
from keras_transformer.text.subwords import Segmenter

MODEL_TYPES = ("bpe", "unigram", "char", "word")
MASK = "<mask>"
NORMALIZATIONS = ("identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")


class Tokenizer:
    """A SentencePiece vocabulary (Kudo and Richardson, 2018, arXiv 1808.06226).

    Text is brought to Unicode NFC first, so that composed and decomposed Korean or accents
    give the same ids. A vocabulary of `train_tokenizer`'s default kind is lossless:
    `decode(encode(text)) == NFC(text)`, up to spaces at either end and a literal "▁".

    Args:
        model_proto: The bytes of a serialized SentencePiece model, as in a `.model` file. Its pad
            id must be 0, and it must have a start and an end id.

    Attributes:
        model_proto: Those bytes.
        pad_id, unknown_id, start_id, end_id: The special ids, read from the model.
        mask_id: The id of `"<mask>"`, for masked language models; None in a vocabulary without.

    Raises:
        ValueError: If the bytes are no SentencePiece model, or its special ids do not fit.

    Example:

    ```python
    tokenizer = kt.text.train_tokenizer(["a man rides", "a man rests"], vocabulary_size=280)
    ids = tokenizer.encode("a man rests ½")
    tokenizer.decode(ids + [tokenizer.end_id])     # "a man rests ½"
    ```
    """

    def __init__(self, model_proto):
        import sentencepiece

        if not model_proto:
            raise ValueError("expected a SentencePiece model, got 0 bytes")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
        except RuntimeError as error:
            raise ValueError(
                f"expected a SentencePiece model, got {len(model_proto)} bytes that are none; "
                "make one with kt.text.train_tokenizer(...).save(path)"
            ) from error
        self.model_proto = model_proto
        self.pad_id = self._processor.pad_id()
        self.unknown_id = self._processor.unk_id()
        self.start_id = self._processor.bos_id()
        self.end_id = self._processor.eos_id()
        mask_id = self._processor.piece_to_id(MASK)
        self.mask_id = mask_id if self._processor.is_control(mask_id) else None
        if self.pad_id != 0 or self.start_id < 0 or self.end_id < 0:
            raise ValueError(
                "expected a vocabulary with pad id 0 and with start and end ids, got "
                f"pad {self.pad_id}, start {self.start_id}, end {self.end_id} (-1 = none); "
                "train one with kt.text.train_tokenizer"
            )

    @property
    def vocabulary_size(self):
        """Returns V, the number of ids, special ones included."""
        return self._processor.vocab_size()

    def special_ids(self):
        """Returns the ids that stand for no text, the unknown one among them, in order."""
        ids = {self.pad_id, self.unknown_id, self.start_id, self.end_id, self.mask_id}
        return sorted(ids - {None})

    def encode(self, text):
        """Text to ids, without start or end; special ids never come from the text.

        Args:
            text: A string, or a list of strings.

        Returns:
            A list of ids, or a list of lists of ids.
        """
        # One line a call: on a list sentencepiece 0.2.3 starts threads at each call, and they
        # sometimes wait for minutes without a reason (seen in decode), to save a fifth of the time.
        encode = self._processor.encode
        try:
            if isinstance(text, str):
                return encode(_nfc(text))
            return [encode(_nfc(line)) for line in text]
        except (RuntimeError, TypeError):  # in words that say nothing of the text
            if isinstance(text, str):
                arguments.string(text, "A tokenizer encodes text, got")
            arguments.strings(text, "encode")
            raise

    def sample(self, texts, alpha, seed):
        """Texts to ids, each cut into pieces at random: the same seed, the same ids.

        On a "bpe" vocabulary this is BPE-dropout (Provilkov et al., 2020, arXiv 1910.13267), on a
        "unigram" one subword regularization (Kudo, 2018, arXiv 1804.10959). The pieces differ,
        `decode` gives the same text.

        Args:
            texts: A list of strings.
            alpha: Above 0, up to 1. With "bpe" the probability with which each merge is left
                out: 0.1 in the paper, 1 gives characters. With "unigram" the exponent of the
                probabilities that segmentations are drawn by: the smaller, the more evenly.
            seed: Integer from 0.

        Returns:
            A list of lists of ids, without start or end.

        Raises:
            ValueError: If `alpha` is out of its range, or the vocabulary is of another kind.
        """
        alpha = arguments.real_number("alpha", alpha)
        seed = arguments.whole_number("seed", seed, least=0)
        best = self.encode(arguments.strings(texts, "sample"))
        ids = np.fromiter(itertools.chain.from_iterable(best), np.int32)
        offsets = np.cumsum([0, *map(len, best)])
        segmenter = Segmenter(self.model_proto, ids, offsets, alpha)
        ids, offsets = segmenter.draw(np.random.default_rng(seed))
        return [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]

    def decode(self, ids):
        """Ids to text: pad and start are left out, the first end ends it, edge spaces go.

        Bytes that are no UTF-8 become "\ufffd" and the unknown id " ⁇ "; nothing a model can
        emit is an error.

        Args:
            ids: A list or array of ids, or a list of those, or an array of shape [B, T].

        Returns:
            A string, or a list of B strings.

        Raises:
            ValueError: If an id lies outside the vocabulary.
        """
        batched = np.ndim(ids[0]) == 1 if len(ids) else np.ndim(ids) == 2
        rows = [self._content(np.asarray(row).tolist()) for row in (ids if batched else [ids])]
        try:
            texts = [self._processor.decode(row).strip(" ") for row in rows]
        except IndexError as error:
            flat = [i for row in rows for i in row]
            raise ValueError(
                f"ids must lie in [0, {self.vocabulary_size}), got {min(flat)} to {max(flat)}: "
                "is this the tokenizer that the model was trained with?"
            ) from error
        return texts if batched else texts[0]

    def _content(self, ids):
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        return [i for i in ids if i != self.pad_id and i != self.start_id]

    def pieces(self, text):
        """Returns the pieces of `text` as strings: "▁" is a space, "<0xE3>" a byte."""
        text = arguments.string(text, "A tokenizer encodes text, got")
        return self._processor.encode(_nfc(text), out_type=str)

    def id_to_piece(self, id):
        """Returns the piece of an id, as a string."""
        return self._processor.id_to_piece(int(id))

    def piece_to_id(self, piece):
        """Returns the id of a piece, `unknown_id` if the vocabulary lacks it."""
        return self._processor.piece_to_id(piece)

    def seen_ids(self, encoded):
        """Marks the ids that occur in encoded training text.

        Args:
            encoded: An iterable of id lists or id arrays.

        Returns:
            A boolean array [V], True = occurred.
        """
        seen = np.zeros(self.vocabulary_size, bool)
        for ids in encoded:
            seen[np.asarray(ids, "int64")] = True
        return seen

    def unseen_pieces(self, text, seen_ids):
        """What in `text` training never saw, so that its translation there is a guess.

        Args:
            text: A string.
            seen_ids: A boolean array [V], True = the id occurred in training; see `seen_ids()`.

        Returns:
            The distinct unseen pieces in order of appearance, readable: without the "▁" of a
            space, and the character itself where the vocabulary spells it in bytes. A piece
            that the vocabulary cannot express at all (unknown) always counts as unseen.
        """
        ids, pieces = self.encode(text), self.pieces(text)
        unseen = []
        pending, pending_unseen = b"", False  # the bytes so far of one character
        for id, piece in zip(ids, pieces, strict=True):
            is_unseen = id == self.unknown_id or not seen_ids[id]
            if self._processor.is_byte(id):
                pending += bytes([int(piece[3:5], 16)])
                pending_unseen |= is_unseen
                try:
                    piece, is_unseen = pending.decode(), pending_unseen
                except UnicodeDecodeError:  # the character goes on in the next piece
                    continue
                pending, pending_unseen = b"", False
            if is_unseen:
                unseen.append(piece.replace("▁", " ").strip(" ") or "▁")
        return list(dict.fromkeys(unseen))

    def save(self, path):
        """Writes the model to `path`, atomically; an existing other file is never overwritten.

        Args:
            path: The file to write, `.model` by custom, in an existing folder.

        Raises:
            ValueError: If `path` exists and holds something else.
            FileNotFoundError: If its folder does not exist.
        """
        path = Path(path)
        if path.exists():
            if path.is_file() and path.read_bytes() == self.model_proto:
                return
            raise ValueError(
                f"{path} exists and is not this tokenizer; choose another path or remove it"
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to save {path.name} in; make it")
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(self.model_proto)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path):
        """Reads a tokenizer that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is empty, no SentencePiece model, or has other special ids.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no tokenizer file {path}; make one with kt.text.train_tokenizer(...).save(path)"
            )
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def in_graph(self):
        """The same tokenizer as TensorFlow ops, for tf.data, tf.function and SavedModel.

        Build it after `keras.utils.set_random_seed`, `tf.random.set_seed` and
        `clear_session`: they destroy the TensorFlow resource that it holds. To encode a corpus,
        `encode` is faster. Loading a SavedModel that holds one needs `import tensorflow_text`.

        Returns:
            A `tf.Module` with two functions:
            `encode(strings [B]) -> RaggedTensor int32 [B, None]`, without special ids, and
            `decode(ids) -> strings [B]` of int32 ids that are ragged or padded, [B, T].

        Example:

        ```python
        graph = tokenizer.in_graph()
        tf.data.TextLineDataset("train.en").batch(64).map(graph.encode)
        tf.saved_model.save(graph, "tokenizer")
        ```
        """
        return _build_in_graph(self)


def _build_in_graph(tokenizer):
    import keras_nlp
    import tensorflow as tf
    import tensorflow_text

    class InGraphTokenizer(tf.Module):
        def __init__(self):
            super().__init__()
            layer = keras_nlp.tokenizers.SentencePieceTokenizer(proto=tokenizer.model_proto)
            # A SavedModel follows tf.Module attributes; it finds the vocabulary through this one
            # only, since a Keras layer hides it (and is no TensorFlow object on other backends).
            self._resource = layer._sentence_piece
            # In a file tensorflow_text calls every vocabulary the same, and two would come back as
            # one: the name of each is its own.
            digest = hashlib.sha256(tokenizer.model_proto).hexdigest()
            self._resource._model_resource._name = f"vocabulary_{digest[:16]}"
            self._tokenize, self._detokenize = layer.tokenize, layer.detokenize

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def encode(self, strings):
            return self._tokenize(tensorflow_text.normalize_utf8(strings, "NFC"))

        def decode(self, ids):
            if isinstance(ids, tf.RaggedTensor):
                ids = ids.to_tensor(tokenizer.pad_id)
            return self.decode_padded(tf.cast(ids, tf.int32))

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def decode_padded(self, ids):  # [B, T]
            ended = tf.math.cumsum(tf.cast(ids == tokenizer.end_id, tf.int32), axis=1) > 0
            special = (ids == tokenizer.pad_id) | (ids == tokenizer.start_id)
            content = tf.ragged.boolean_mask(ids, ~(ended | special))
            return tf.strings.regex_replace(self._detokenize(content), "^ +| +$", "")

    return InGraphTokenizer()


def train_tokenizer(
    pairs,
    vocabulary_size=10_000,
    model_type="bpe",
    normalization="identity",
    character_coverage=None,
    mask=False,
):
    """Trains one vocabulary on both sides of parallel text (sec. 5.1: shared BPE).

    The same text and arguments give the same vocabulary, whatever the machine.

    Args:
        pairs: An iterable of (source, target) string pairs, or of plain strings.
        vocabulary_size: V, with the 4 special ids (pad 0, unknown 1, start 2, end 3) and, for
            "bpe" and "unigram", 256 bytes. A "char" vocabulary may come out smaller.
        model_type: "bpe" or "unigram" (both lossless: what is rare is spelled in bytes), or
            "char" or "word" (what is not in the vocabulary becomes unknown).
        normalization: "identity" keeps the text as it is. "nmt_nfkc", "nfkc", "nmt_nfkc_cf" and
            "nfkc_cf" are SentencePiece's own lossy rules (½ becomes 1⁄2, runs of spaces one).
        character_coverage: The share of the text, from 0.98 to 1, whose characters get a piece
            of their own. Defaults to 0.9995 for "bpe" and "unigram", else 1.
        mask: Whether there is a fifth special id, `mask_id` 4, for masked language models. The
            characters "<mask>" in a text are text like any other.

    Returns:
        A `Tokenizer`.

    Raises:
        ValueError: If there is no text, or if it cannot fill a vocabulary of that size or
            needs a larger one; the text names the limit.

    Example:

    ```python
    pairs = [("a dog runs", "ein hund rennt"), ("a dog sleeps", "ein hund schläft")]
    tokenizer = kt.text.train_tokenizer(pairs, vocabulary_size=290)
    ```
    """
    import io

    import sentencepiece

    for name, value, allowed in (
        ("model_type", model_type, MODEL_TYPES),
        ("normalization", normalization, NORMALIZATIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    if pairs is None or isinstance(pairs, str | bytes):
        raise ValueError(
            f"pairs must be an iterable of pairs or of lines, got {_kind(pairs)}; "
            "read files with kt.data.read_parallel"
        )
    special = 5 if mask else 4
    vocabulary_size = arguments.whole_number(
        "vocabulary_size",
        vocabulary_size,
        least=special + 1,
        advice=f"{special} ids are special: pad, unknown, start, end{', mask' if mask else ''}.",
    )
    if character_coverage is not None:
        arguments.real_number("character_coverage", character_coverage, least=0.98)
        if character_coverage > 1:
            raise ValueError(f"character_coverage is at most 1, got {character_coverage}.")
    lines = [
        # SentencePiece drops whole lines that hold its marker for rare characters, "▅".
        _nfc(line).replace("▅", " ")
        for number, item in enumerate(pairs)
        for line in _lines_of(item, number)
        if line.strip()
    ]
    if not lines:
        raise ValueError("cannot train a vocabulary on no text: every line is empty")
    spells_in_bytes = model_type in ("bpe", "unigram")
    if character_coverage is None:
        # Korean has 11,172 syllables, of which a corpus repeats a thousand or two. Bytes keep the
        # rest without loss, and an embedding of a character seen once or twice would hardly be
        # trained. Where there are no bytes, a character without a piece would be lost.
        character_coverage = 0.9995 if spells_in_bytes else 1.0
    model = io.BytesIO()
    try:
        # One long call, of which SentencePiece tells nothing: the lines that it has, and the time.
        with progress.work("training a vocabulary", unit="lines") as done:
            done(len(lines))
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=model_type,
                vocab_size=vocabulary_size,
                character_coverage=character_coverage,
                normalization_rule_name=normalization,
                remove_extra_whitespaces=normalization != "identity",
                byte_fallback=spells_in_bytes,
                pad_id=0,
                unk_id=1,
                bos_id=2,
                eos_id=3,
                # Never found in a text, unlike user's symbols.
                control_symbols=[MASK] if mask else [],
                # Bytes; the default drops lines over 4,192 without a word.
                max_sentence_length=2**30,
                # Unigram's sums, hence its pieces, depend on the number of threads.
                num_threads=1,
                minloglevel=2,
            )
    except RuntimeError as error:
        raise _training_error(str(error), vocabulary_size, model_type) from error
    return Tokenizer(model.getvalue())


class VocabularySizeError(ValueError):
    """The text cannot fill a vocabulary of that size, or needs a larger one.

    Args:
        message: What was asked for, and what is possible.
        possible: The nearest size that this text allows, an integer.
    """

    def __init__(self, message, possible):
        super().__init__(message)
        self.possible = possible


def _training_error(message, vocabulary_size, model_type):
    prefix = f"cannot train a {model_type} vocabulary of vocabulary_size={vocabulary_size}: "
    if most := re.search(r"size too high .*<= (\d+)", message):
        return VocabularySizeError(
            prefix + f"this text supports at most {most[1]}; lower it or give more text",
            int(most[1]),
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return VocabularySizeError(
            f"{prefix}this text needs at least {least[1]} (special ids, bytes, its frequent "
            "characters); raise it or lower character_coverage",
            int(least[1]),
        )
    return ValueError(prefix + f"SentencePiece says {message}")


def comparable(text):
    """What texts have in common that are one to a reader: NFC, without spaces at either end."""
    return _nfc(text).strip()


def _kind(value):
    return "one string" if value is not None else "None"


def _lines_of(item, number):
    """The strings of an item of `pairs`, which is the `number`-th."""
    try:
        return [
            arguments.string(line, f"Item {number} of pairs holds")
            for line in ([item] if isinstance(item, str | bytes) else item)
        ]
    except TypeError:
        raise ValueError(
            f"pairs is an iterable of pairs of strings or of strings; item {number} is {item!r}."
        ) from None


def _nfc(text):
    return unicodedata.normalize("NFC", text)
