"""Parity of a trained Transformer with `transformers`' Marian: logits, greedy and beam search.

The weights are trained here and copied to a `MarianMTModel`, which has its own cache and search and
shares no code with this package. The two searches differ in these points:

- Penalty: theirs is only length^alpha, so alpha 1 is our `"average"` and alpha 0 is our 0. The
  paper's ((5 + length) / 6)^alpha is tested in test_search. Both count the end and not the start.
- Stopping: both look at the best 2N candidates, and those among the best N that end are finished.
  Their default, `early_stopping=False`, stops a sentence when N hypotheses are finished and at
  least as good as the leader at its current length. Ours then also waits for greedy search's
  hypothesis, and stops earlier if no unfinished hypothesis can win. Neither matters here.
  `early_stopping=True` stops with N finished hypotheses, so its best is ours or a worse one.
- Limit: ours ends a hypothesis there and counts the end's probability. Their
  `forced_eos_token_id` does not count it. No hypothesis here reaches the limit.
- Padding and start: ours never chooses them, theirs only with `suppress_tokens`. Neither gives
  their probability to other tokens.
"""

import keras
import numpy as np
import pytest

from keras_transformer.decoding.translator import Translator
from keras_transformer.losses import SmoothedCrossentropy
from keras_transformer.models import Transformer
from keras_transformer.optimizers import PaperAdam
from keras_transformer.optimizers.schedules import PaperSchedule

pytestmark = pytest.mark.tensorflow_only  # test_search tests our search on every backend

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[parity]'")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install -e '.[parity]'"
)
torch.set_num_threads(1)

from decoding.huggingface import to_huggingface  # noqa: E402

PAD, START, END, LOOSE, STRICT, TWICE = range(6)
WORDS, OTHERS, V = np.arange(6, 11), 5, 16  # target words 6 to 10, and a synonym 5 above each
BEAMS, LIMIT = 4, 40
SIZES = {"num_layers": 1, "num_decoder_layers": 2, "d_model": 24, "num_heads": 3, "d_ff": 37}


class Digits:
    """A vocabulary whose words are numbers."""

    pad_id, start_id, end_id = PAD, START, END

    @property
    def vocabulary_size(self):
        return V

    def encode(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids):
        return " ".join(map(str, ids))


def translation(source, random):
    """Translates the source to its reverse, in one of three ways that the first word reveals.

    The way that is most probable at the first word is the least probable in the end. So greedy
    search takes the wrong way, and the best sentences by sum and by average differ.
    """
    way = random.choice([LOOSE, STRICT, TWICE], p=[0.5, 0.27, 0.23])
    words = source[::-1]
    if way == LOOSE:
        words = words + OTHERS * random.integers(0, 2, len(words))
    elif way == TWICE:
        words = np.repeat(words, 2)
    return [way, *words, END]


def batches(seed, rows=64):
    """Yields endless batches for `fit`, all of one shape."""
    random = np.random.default_rng(seed)
    while True:
        source_ids, target = np.zeros((rows, 6), "int32"), np.zeros((rows, 13), "int32")
        target[:, 0] = START
        for row in range(rows):
            source = random.choice(WORDS, random.integers(1, 6))
            ids = translation(source, random)
            source_ids[row, : len(source) + 1] = [*source, END]
            target[row, 1 : len(ids) + 1] = ids
        labels = target[:, 1:]
        yield (
            {"source_ids": source_ids, "target_ids": target[:, :-1]},
            labels,
            (labels != 0) / np.float32((labels != 0).sum()),
        )


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(7)
    model = Transformer(V, **SIZES, dropout=0.0)
    optimizer = PaperAdam(learning_rate=PaperSchedule.with_peak(0.01, 40))
    model.compile(optimizer, SmoothedCrossentropy(0.0), jit_compile=False)
    model.fit(batches(7), steps_per_epoch=200, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def marian(model):
    """Returns a `MarianMTModel` with the weights of our model."""
    ids = {"pad_id": PAD, "start_id": START, "end_id": END}
    theirs = to_huggingface(model, LIMIT + 1, **ids, attn_implementation="eager")
    assert isinstance(theirs, transformers.MarianMTModel)
    return theirs


@pytest.fixture(scope="module")
def sources():
    """Returns 61 sources. Some are longer than in training, where the model is unsure."""
    random = np.random.default_rng(61)
    return [random.choice(WORDS, 1 + i % 7).tolist() for i in range(61)]


def generate(marian, sources, **options):
    """Returns their hypotheses per source, [(ids without the end, score), ...], best first."""
    ids = [torch.tensor([*source, END]) for source in sources]
    ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD)
    found = marian.generate(
        input_ids=ids,
        attention_mask=(ids != PAD).long(),
        max_length=LIMIT,
        suppress_tokens=[PAD, START],
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    rows = []
    for row in found.sequences[:, 1:].tolist():
        assert END in row, "A hypothesis reached the limit, where the two searches differ."
        rows.append(row[: row.index(END)])
    scores = getattr(found, "sequences_scores", None)
    scores = [None] * len(rows) if scores is None else scores.tolist()
    each = len(rows) // len(sources)
    pairs = list(zip(rows, scores, strict=True))
    return [pairs[i : i + each] for i in range(0, len(pairs), each)]


@pytest.fixture(scope="module")
def translator(model):
    return Translator(model, Digits())


def search(translator, sources, n, beams, penalty):
    """Returns our hypotheses in the same form, from the public `n_best`."""
    texts = [" ".join(map(str, source)) for source in sources]
    found = translator.n_best(texts, n, beam_size=beams, length_penalty=penalty)
    return [[(each.ids, each.score) for each in row] for row in found]


def best(found):
    return [row[0][0] for row in found]


def test_logits_are_marians(model, marian):
    inputs, labels, _ = next(batches(11, rows=37))
    source_ids, target_ids = (torch.tensor(ids, dtype=torch.long) for ids in inputs.values())
    with torch.no_grad():
        expected = marian(
            input_ids=source_ids,
            attention_mask=(source_ids != PAD).long(),
            decoder_input_ids=target_ids,
        ).logits.numpy()
    real = labels != PAD
    np.testing.assert_allclose(model(inputs).numpy()[real], expected[real], rtol=1e-4, atol=2e-5)


def test_greedy_search_is_theirs(translator, marian, sources):
    ours = search(translator, sources, 1, 1, 0)
    assert best(ours) == best(generate(marian, sources, num_beams=1))


# Fails if: a finished score does not count the end, or has no penalty; all 2N candidates may
# finish; only N candidates are considered; a row is never full; the cache is not reordered.
@pytest.mark.parametrize(("penalty", "alpha"), [(0, 0.0), ("average", 1.0)])
def test_beam_search_is_theirs(translator, marian, sources, penalty, alpha):
    options = {"num_beams": BEAMS, "length_penalty": alpha}
    ours = search(translator, sources, BEAMS, BEAMS, penalty)
    theirs = generate(marian, sources, early_stopping=False, num_return_sequences=BEAMS, **options)
    for our_row, their_row in zip(ours, theirs, strict=True):
        assert [ids for ids, _ in our_row] == [ids for ids, _ in their_row]
        scores, expected = ([score for _, score in row] for row in (our_row, their_row))
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)

    # A search for the best only finds the same, and early stopping makes no sentence better.
    assert best(search(translator, sources, 1, BEAMS, penalty)) == best(theirs)
    hasty = generate(marian, sources, early_stopping=True, **options)
    losses = np.array([a[0][1] - b[0][1] for a, b in zip(ours, hasty, strict=True)])
    assert (losses > -1e-5).all()


def test_what_is_compared_depends_on_the_search(translator, sources):
    """Otherwise a search that always returns the greedy sentence would pass."""
    greedy, by_sum, by_average = (
        best(search(translator, sources, 1, beams, penalty))
        for beams, penalty in ((1, 0), (BEAMS, 0), (BEAMS, "average"))
    )
    for one, other, share in ((greedy, by_sum, 0.3), (by_sum, by_average, 0.02)):
        assert np.mean([a != b for a, b in zip(one, other, strict=True)]) > share
