"""Laws of word alignments, on a small model with random weights."""

import numpy as np
import pytest
from test_translator import character_tokenizer, small_model

from keras_transformer import Translator
from keras_transformer.decoding.alignment import check_heads, links, pharaoh, word_numbers
from keras_transformer.text import Seen, train_tokenizer

PAIRS = [("ab cd", "uv s"), ("c", "st"), ("", "s"), ("de fa b", "t su vs zz"), ("a", " ")]


@pytest.fixture(scope="module")
def translator():
    source, target = character_tokenizer("abcdef"), character_tokenizer("stuvwxyz")
    vocabularies = source.vocabulary_size, target.vocabulary_size
    model = small_model(vocabularies[0], target_vocabulary_size=vocabularies[1])
    return Translator(model, source, target)


def expected(translator, source, target, layer, heads):
    """The links of one pair, from all weights of the model, over letters."""
    [source_ids], [target_ids] = (
        tokenizer.encode([text])
        for tokenizer, text in (
            (translator.tokenizer, source),
            (translator.target_tokenizer, target),
        )
    )
    arrays = (
        [[*source_ids, translator.tokenizer.end_id]],
        [[translator.target_tokenizer.start_id, *target_ids]],
    )
    weights = translator.models[0].attention_weights(*map(np.array, arrays))["cross"]
    weights = weights[layer, 0, heads].mean(axis=0)[:-1, :-1]  # positions that predict; no end
    found = []
    # A piece of this vocabulary is one character, or the space before the first word.
    spelled = [f" {text}" for text in (source, target)]
    for word in range(len(target.split())):
        rows = [i for i, c in enumerate(spelled[1]) if c != " " and at(spelled[1], i) == word]
        spaces = [
            i for i, c in enumerate(spelled[1]) if c == " " and space_at(spelled[1], i) == word
        ]
        row = weights[rows + spaces].mean(axis=0)
        sums = [
            sum(
                row[i]
                for i, c in enumerate(spelled[0])
                if (space_at if c == " " else at)(spelled[0], i) == other
            )
            for other in range(len(source.split()))
        ]
        found.append((int(np.argmax(sums)), word))
    return sorted(found)


def at(text, i):
    """The number of the word of a letter."""
    return len(text[: i + 1].split()) - 1


def space_at(text, i):
    """A space belongs to the word before it, or to the first."""
    return max(0, len(text[:i].split()) - 1)


# Fails if: weights are those of the reading position; padding or the end is linked; pairs of a
# batch are mixed up; the layer or the heads are ignored.
def test_a_word_is_linked_to_the_word_that_it_attends_to_most(translator):
    wanted = [(-1, None), (0, [1]), (1, [0])]
    different = set()
    for layer, heads in wanted:
        found = translator.align(PAIRS, 2, layer=layer, heads=heads)
        for (source, target), each in zip(PAIRS, found, strict=True):
            if not source.strip() or not target.strip():
                assert each == []
                continue
            assert each == expected(translator, source, target, layer, heads or [0, 1])
        different.add(str(found))
    assert len(different) > 1
    [best] = translator.n_best(["ab cd"], 1, beam_size=1)
    assert translator.align([("ab cd", best[0].ids)]) == translator.align([("ab cd", best[0].text)])


# Fails if: words are counted as the model reads them.
def test_words_are_counted_in_the_text_that_was_given(translator):
    tokenizers = translator.tokenizer, translator.target_tokenizer
    seen = Seen.of(["ab cd"], tokenizers[0])
    reader = Translator(translator.models, *tokenizers, seen=seen)
    plain = reader.align([("ab cd", "uv s")])[0]
    for source, places in (("\u200b ab \u00ad cd", [1, 3]), ("▁ ab cd ▁", [1, 2])):
        found = reader.align([(source, "uv s")])[0]
        assert found == sorted((places[i], j) for i, j in plain)
    assert reader.align([("ab cd", "▁ uv s")])[0] == sorted((i, j + 1) for i, j in plain)


# Fails if: a word that shares its piece with another one divides 0 by 0.
def test_two_words_of_one_piece_have_its_links():
    weights = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert links(weights, [0, 1], [1, 2]) == [(0, 2), (1, 0), (1, 1)]


def test_links_are_of_words_and_pharaohs():
    weights = np.array([[0.3, 0.3, 0.4], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]])
    assert links(weights, [0, 0, 1], [0, 0, 1]) == [(0, 0), (1, 1)]
    assert links(np.array([[0.1, 0.9], [0.8, 0.2]]), [0, 1], [0, 1]) == [(0, 1), (1, 0)]
    assert pharaoh([(0, 1), (1, 0)]) == "0-1 1-0" and pharaoh([]) == ""


# Fails if: a space counts as a word; the bytes of a letter do; an unknown letter begins a word.
@pytest.mark.parametrize("text", ["ab", "ab cd", "a  b c", "a 가나 b", "a나 나b", "나"])
def test_tokens_know_their_word(translator, text):
    for tokenizer in (translator.tokenizer, train_tokenizer(["ab cd abc ab cd"], 270)):
        ids = tokenizer.encode(text)
        numbers = word_numbers(ids, tokenizer.decode)
        assert len(numbers) == len(ids) and numbers == sorted(numbers)
        assert set(numbers) == set(range(len(text.split())))
        for number, word in enumerate(text.split()):
            own = [id for id, n in zip(ids, numbers, strict=True) if n == number]
            if tokenizer.unknown_id not in own:
                assert tokenizer.decode(own) == word


def test_what_cannot_be_aligned_is_refused(translator):
    for options, message in (
        ({"layer": 2}, "from -2 to 1, because the decoder has 2 layer.*got 2"),
        ({"heads": [2]}, "A head is from 0 to 1, got 2"),
        ({"heads": []}, "heads has no head"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=message):
            translator.align([("a", "s")], **options)
    with pytest.raises(ValueError, match="CTranslate2 gives no attention"):
        check_heads([], -1, None)
    with pytest.raises(ValueError, match="list of .*pairs, got"):
        translator.align(["ab"])
