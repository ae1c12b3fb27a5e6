"""Laws of subword sampling: other pieces of the same text, in batches that keep their own laws."""

from collections import Counter

import numpy as np
import pytest

from keras_transformer import data, text

pytestmark = pytest.mark.tensorflow_only

WORDS = (
    "ein eine einen mann frau hund rennt schläft sitzt auf unter neben dem der 나는 집에".split()
)


def lines(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


PAIRS = list(zip(lines(61, 1), lines(61, 2), strict=True))


def tokenizer(model_type="bpe"):
    return text.train_tokenizer(PAIRS, 310 if model_type == "bpe" else 290, model_type=model_type)


def texts(encoded, vocabulary):
    return [
        (vocabulary.decode(encoded.source(i)), vocabulary.decode(encoded.target(i)))
        for i in range(len(encoded))
    ]


def epoch_texts(plan, vocabulary, epoch):
    """Reads the pairs of an epoch back from its batches, and sorts them."""
    count, pairs = plan.batches_per_epoch, []
    for update in range(epoch * count, (epoch + 1) * count):
        [(inputs, labels, _)] = plan.batches(update)
        both = vocabulary.decode(inputs["source_ids"]), vocabulary.decode(labels)
        pairs += [pair for pair in zip(*both, strict=True) if any(pair)]
    return sorted(pairs)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampled_pieces_are_others_of_the_same_text(kind):
    vocabulary = tokenizer(kind)
    sources = [source for source, _ in PAIRS]
    sampled = vocabulary.sample(sources, 0.3, seed=5)
    assert sampled == vocabulary.sample(sources, 0.3, seed=5)
    assert sampled != vocabulary.sample(sources, 0.3, seed=6)
    assert sampled != vocabulary.encode(sources)
    assert vocabulary.decode(sampled) == sources


# Fails if: the sampler's seed is not set.
def test_draws_are_the_same_in_every_process():
    vocabulary = text.train_tokenizer(["abcab"] * 9 + ["ab c ca"] * 5, 270)
    drawn = vocabulary.sample(["abcab ca", "", "abcab abcab"], 0.5, seed=1)
    assert [" ".join(map(vocabulary.id_to_piece, ids)) for ids in drawn] == [
        "▁ a b c a b ▁ca",
        "",
        "▁ab c ab ▁ a b c a b",
    ]


def test_each_merge_is_left_out_with_probability_alpha():
    vocabulary = text.train_tokenizer(["ab"] * 9 + ["b a"] * 5, 265)
    assert vocabulary.pieces("ab") == ["▁ab"]  # of ▁, a, b: two merges, one after the other
    drawn = vocabulary.sample(["ab"] * 5000, 0.1, seed=1)
    whole = np.mean([len(ids) == 1 for ids in drawn])
    assert abs(whole - 0.9**2) < 0.022  # 4 standard deviations
    assert vocabulary.sample(["ab"], 1.0, seed=1) == [
        [vocabulary.piece_to_id(piece) for piece in "▁ab"]
    ]


# Fails if: merges go from right to left; a new piece does not look at its neighbours again.
def test_with_no_merge_left_out_the_pieces_are_the_best():
    # Bytes, an unknown space, words of one letter, a long word and an empty line are as in
    # SentencePiece.
    vocabulary = tokenizer()
    texts = [*(line for pair in PAIRS for line in pair), "½ eine½r", "", "  a", "einemann" * 40]
    assert vocabulary.sample(texts, 1e-12, seed=1) == vocabulary.encode(texts)
    # The leftmost of equal pairs is merged first: aa a, not a aa.
    vocabulary = text.train_tokenizer(["baa"] * 9, 264)
    assert vocabulary.pieces("aaa") == ["▁", "aa", "a"]
    assert vocabulary.sample(["aaa", "baaaaa"], 1e-12, 1) == vocabulary.encode(["aaa", "baaaaa"])


# Fails if: a merge that was left out once is never tried again; no merge is left out; alpha is
# ignored.
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_segmentations_are_as_likely_as_sentencepiece_draws_them(kind, alpha):
    import sentencepiece

    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(["ab", "bc", "ca", "aa"], rng.integers(1, 5))) for _ in range(400)]
    vocabulary = text.train_tokenizer(words, 290, model_type=kind)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model_proto)
    draws = 4000
    kinds = 0
    for word in ("abbc", "caabaa", "½bcaab"):
        ours = Counter(map(tuple, vocabulary.sample([word] * draws, alpha, seed=3)))
        expected = Counter(
            tuple(theirs.encode(word, enable_sampling=True, alpha=alpha, nbest_size=-1))
            for _ in range(draws)
        )
        kinds += len(ours)
        for each in ours | expected:
            share = (ours[each] + expected[each]) / (2 * draws)
            deviation = np.sqrt(2 * draws * share * (1 - share))
            assert abs(ours[each] - expected[each]) <= 6 * deviation, (word, each)
    assert kinds >= 15


# Fails if: every epoch is sampled alike; batches are not filled up; batches are made from the best
# pieces.
@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("budget, rows_multiple", [(61, 1), (400, 3), (10_000, 1)])
def test_every_epoch_is_a_partition_within_the_budget(mode, budget, rows_multiple):
    vocabulary = tokenizer()
    encoded = data.encode_pairs(PAIRS, vocabulary)
    plan = data.BatchPlan(
        encoded,
        budget,
        seed=3,
        shapes=mode,
        rows_multiple=rows_multiple,
        sampling=data.SubwordSampling(encoded, vocabulary, alpha=0.2),
    )
    segmentations = set()
    for epoch in range(3):
        assert epoch_texts(plan, vocabulary, epoch) == sorted(texts(encoded, vocabulary))
        [shapes, static] = [plan.shapes(epoch), plan.shapes(0)]
        assert all(
            rows * max(s, t) <= budget and rows % rows_multiple == 0 for rows, s, t in shapes
        )
        if mode == "static":
            assert len({*shapes, *static}) <= 16
        count = plan.batches_per_epoch
        batches = [plan.batches(epoch * count + i)[0] for i in range(count)]
        segmentations.add(sum(int((labels > 0).sum()) for _, labels, _ in batches))
        for _, labels, weights in batches:
            assert np.isclose(weights.sum(), 1) and ((weights > 0) == (labels > 0)).all()
    assert len(segmentations) > 1  # epochs have other pieces


def test_an_update_is_a_pure_function_of_seed_and_update():
    vocabulary = tokenizer()
    encoded = data.encode_pairs(PAIRS, vocabulary)

    def plan(seed, alpha=0.2):
        sampling = data.SubwordSampling(encoded, vocabulary, alpha=alpha)
        return data.BatchPlan(encoded, 150, seed=seed, accumulate=2, sampling=sampling)

    def ids(plan, update):
        return [batch[0]["source_ids"].tolist() for batch in plan.batches(update)]

    walked = plan(1)
    sequence = [ids(walked, update) for update in range(20)]
    assert walked.updates_per_epoch * 2 < 20
    assert [ids(plan(1), update) for update in (19, 7)] == [sequence[19], sequence[7]]
    assert ids(plan(2), 7) != sequence[7] and ids(plan(1, alpha=0.5), 7) != sequence[7]


# Fails if: sampled pieces are kept although they are too many.
def test_what_would_come_out_too_long_keeps_its_best_pieces():
    vocabulary = tokenizer()
    encoded = data.encode_pairs(PAIRS, vocabulary, max_length=30)
    sampling = data.SubwordSampling(encoded, vocabulary, alpha=0.9)
    drawn = sampling.draw([1], longest=30)
    lengths = np.maximum(drawn.source_lengths, drawn.target_lengths) + 1
    assert lengths.max() <= 30 < sampling.draw([1], longest=200).source_lengths.max()
    assert texts(drawn, vocabulary) == texts(encoded, vocabulary)
    kept = [
        i
        for i in range(len(encoded))
        if len(vocabulary.encode(texts(encoded, vocabulary)[i][0])) == drawn.source_lengths[i]
    ]
    assert kept


def test_sides_have_their_own_vocabularies():
    source = text.train_tokenizer([pair[0] for pair in PAIRS], 300)
    target = text.train_tokenizer([pair[1] for pair in PAIRS], 310)
    encoded = data.encode_pairs(PAIRS, source, target)
    drawn = data.SubwordSampling(encoded, source, target, alpha=0.3).draw([7], 100)
    assert [source.decode(drawn.source(i)) for i in range(9)] == [pair[0] for pair in PAIRS[:9]]
    assert [target.decode(drawn.target(i)) for i in range(9)] == [pair[1] for pair in PAIRS[:9]]


def test_a_few_pairs_find_their_batches():
    # An epoch has one or two batches. A segmentation that happens to need more is drawn again.
    pairs = PAIRS[:3]
    vocabulary = tokenizer()
    encoded = data.encode_pairs(pairs, vocabulary)
    sampling = data.SubwordSampling(encoded, vocabulary, alpha=0.3)
    longest = max(encoded.source_lengths.max(), encoded.target_lengths.max()) + 1
    plan = data.BatchPlan(encoded, 2 * int(longest), sampling=sampling)
    for epoch in range(20):
        assert len(epoch_texts(plan, vocabulary, epoch)) == 3


def test_wrong_arguments():
    vocabulary = tokenizer()
    for alpha in (0, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"alpha .*, got {alpha}"):
            vocabulary.sample(["a"], alpha, seed=1)
    characters = text.train_tokenizer(PAIRS, 60, model_type="char")
    encoded = data.encode_pairs(PAIRS, characters)
    with pytest.raises(ValueError, match="only bpe and unigram"):
        data.SubwordSampling(encoded, characters)


def test_token_batches_samples():
    batches = data.token_batches(PAIRS, tokenizer(), 200, subword_sampling=0.5, shapes="dynamic")
    plain = data.token_batches(PAIRS, tokenizer(), 200, shapes="dynamic")

    def tokens(dataset):
        return sum(int(np.count_nonzero(labels)) for _, labels, _ in dataset.take(9))

    assert tokens(batches) > tokens(plain) > 0
