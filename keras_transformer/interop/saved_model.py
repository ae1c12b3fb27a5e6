"""A translator as a TensorFlow SavedModel: from strings to strings, in one graph.

The tokenizer and the search are inside. So it runs wherever TensorFlow and the operations of
tensorflow_text run: in Python without this package, or in TensorFlow Serving. The graph takes any
number of texts of any length. It is not compiled by XLA, which would take 4 seconds for each new
number and length, where this takes 0.1, and is faster only for a few sentences at once (one:
0.01 instead of 0.07 seconds; 64: 1.0 instead of 0.9).
"""

import os
from typing import Any

import keras

from keras_transformer import arguments, progress
from keras_transformer.decoding import SearchOptions, Translator
from keras_transformer.decoding.id_translator import Wanted, least_length
from keras_transformer.files import new_folder

# All that Python's `str.strip` removes; TensorFlow's `strip` removes less.
BLANK = r"[\t-\r\x1c-\x1f\x{85}\pZ]*"

README = """\
A TensorFlow SavedModel, exported by keras_transformer. To translate with it:

    import tensorflow as tf, tensorflow_text
    model = tf.saved_model.load(".")
    found = model.translate(tf.constant(["A sentence .", "Another ."]))
    print([text.decode() for text in found["translations"].numpy()], found["scores"].numpy())

TensorFlow Serving: "texts" in, "translations" and "scores" out. The search is fixed: beam size
{beam_size}, length penalty {length_penalty}{options}. A blank text gives an empty translation.
"""


def to_saved_model(
    translator: Translator,
    folder: str | os.PathLike,
    beam_size: int = 4,
    length_penalty: float | str = 0.6,
    *,
    prefix: str | None = None,
    **options: Any,
) -> None:
    """Writes a translator, its tokenizer and its search as a SavedModel.

    Its function `translate` is also its signature `serving_default`. It maps `texts`, strings [B],
    to `{"translations": strings [B], "scores": floats [B]}`, as `Translator.n_best` does. Import
    tensorflow_text before you load it.

    Args:
        translator: A `Translator`, also of an ensemble.
        folder: The folder to make, which must not exist. TensorFlow Serving expects a number as its
            name, `en-de/1`.
        beam_size, length_penalty: As in `Translator.translate`. They are fixed in the file.
        prefix: How all translations begin.
        **options: Further arguments of `Translator.translate` that are fixed in the file:
            `min_length`, `no_repeat_ngram` and the others of `kt.decoding.SearchOptions`, but no
            `sampling`.

    Raises:
        ValueError: On another backend than TensorFlow, if an option is out of its range, or if the
            folder exists. Nothing is written.
        OSError: If it cannot be written. Nothing is left.

    Example:

    ```python
    kt.interop.to_saved_model(kt.load_translator("runs/en-de"), "exports/en-de")
    # elsewhere
    model = tf.saved_model.load("exports/en-de")
    model.translate(tf.constant(["A man rides a horse ."]))["translations"]
    ```
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"A SavedModel is made on the tensorflow backend, this is {backend}: set "
            "KERAS_BACKEND=tensorflow. It loads runs of every backend."
        )
    beam_size = arguments.whole_number("beam_size", beam_size, advice="1 is greedy search.")
    length_penalty = arguments.length_penalty(length_penalty)
    # An empty text brings the checks of `translate`.
    [item], wanted = translator.asked([""], 1, beam_size, length_penalty, prefix=prefix, **options)
    if wanted.draw is not None:
        raise ValueError("A SavedModel draws no translations: leave sampling out.")
    translator.check([item._replace(source=[translator.tokenizer.end_id])], wanted)
    import tensorflow as tf

    with new_folder(folder) as folder, progress.work("writing a SavedModel"):
        module = _text_to_text(translator, wanted, item.prefix)
        try:
            tf.saved_model.save(module, str(folder), signatures=module.translate)
        except tf.errors.OpError as error:  # also of a full disk
            raise OSError(f"TensorFlow could not write the SavedModel: {error.message}") from error
        given = {"prefix": prefix} | options
        usual = vars(SearchOptions())
        said = "".join(f", {k} {v!r}" for k, v in given.items() if v and v != usual.get(k))
        text = README.format(beam_size=beam_size, length_penalty=length_penalty, options=said)
        (folder / "README.txt").write_text(text, encoding="utf-8")


def _text_to_text(translator: Translator, wanted: Wanted, prefix: list[int]) -> Any:
    import tensorflow as tf

    end_id = translator.tokenizer.end_id
    learned = {
        side: translator.learned_positions(f"{side}_embedding") for side in ("source", "target")
    }

    class TextToText(tf.Module):
        def __init__(self):
            super().__init__()
            self.source = self.target = translator.tokenizer.in_graph()
            if translator.target_tokenizer is not translator.tokenizer:
                self.target = translator.target_tokenizer.in_graph()
            # A SavedModel holds the variables that it finds in attributes.
            self.weights = [w.value for model in translator.models for w in model.weights]

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.string, name="texts")], autograph=False
        )
        def translate(self, texts):
            blank = tf.strings.regex_full_match(texts, BLANK)
            ids = self.source.encode(tf.where(blank, "", texts))  # ragged [B, None]
            lengths = tf.cast(ids.row_lengths(), "int32")
            ends = tf.fill([tf.size(texts), 1], end_id)
            source_ids = tf.concat([ids, ends], axis=1).to_tensor()  # [B, S], pad id 0
            if learned["source"] is not None:
                fits = tf.debugging.assert_less_equal(
                    tf.shape(source_ids)[1],
                    learned["source"],
                    "A text has more tokens than the positions that the model has learned.",
                )
                with tf.control_dependencies([fits]):  # before the embedding looks them up
                    source_ids = tf.identity(source_ids)

            empty = lengths == 0
            if wanted.max_length is not None:
                limits = tf.fill(tf.shape(lengths), wanted.max_length + 1)
            else:
                limits = tf.maximum(lengths, len(prefix)) + translator.EXTRA_LENGTH
                limits = tf.maximum(limits, least_length(wanted) + 1)
            if learned["target"] is not None:
                limits = tf.minimum(limits, learned["target"])
            limits = tf.where(empty, 1, limits)  # a text without tokens ends at once
            longest = tf.reduce_max(tf.concat([[1], limits], axis=0))
            rows = {"source_ids": source_ids}
            if prefix:
                rows["prefix"] = tf.tile([prefix], [tf.size(texts), 1])
            found, scores, _ = translator.search_ids(
                source_ids, limits, longest, *wanted[:3], adjust=wanted.adjust, rows=rows
            )
            return {
                "translations": self.target.decode_padded(found[:, 0]),
                "scores": tf.where(empty, 0.0, scores[:, 0]),
            }

    return TextToText()
