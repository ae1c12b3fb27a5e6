"""What training saw, and what is said of the rest."""

import unicodedata

import numpy as np
import pytest

from keras_transformer import seen, text
from keras_transformer.seen import Seen

pytestmark = pytest.mark.tensorflow_only  # text only

TRAINED_ON = ["나는 나비를 봤다.", "A bird, a bee!", "비가 와요"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return text.train_tokenizer(TRAINED_ON, vocabulary_size=300)


def test_new_words_of_known_pieces_are_unseen(tokenizer):
    known = Seen.of(TRAINED_ON, tokenizer)
    assert known.unseen("나비를 나는 A BIRD?", tokenizer) == []
    assert known.unseen('"비를", a beard 비를', tokenizer) == ["비를", "beard"]
    assert known.unseen(unicodedata.normalize("NFD", "나비를 봤다"), tokenizer) == []


def test_new_characters_are_unseen_once(tokenizer):
    known = Seen.of(TRAINED_ON, tokenizer)
    assert known.unseen("a 😀 😀", tokenizer) == ["😀"]
    assert known.unseen("※", tokenizer) == ["※"]  # punctuation is no word, but a piece


def test_of_many_words_only_pieces_are_kept(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(seen, "MOST_WORDS", 5)
    known = Seen.of(TRAINED_ON, tokenizer)
    assert known.words is None
    known.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["seen_ids.npy"]
    assert Seen.load(tmp_path).unseen("비를 ※", tokenizer)[-1] == "※"


def test_a_union_has_what_either_had(tokenizer, monkeypatch):
    birds, bees = (Seen.of([line], tokenizer) for line in ("A bird", "a bee ※"))
    union = birds.union(bees)
    assert union.words == {"a", "bird", "bee"}
    np.testing.assert_array_equal(union.ids, Seen.of(["A bird", "a bee ※"], tokenizer).ids)
    assert birds.union(Seen(bees.ids, None)).words is None
    assert Seen(bees.ids, None).union(birds).words is None
    monkeypatch.setattr(seen, "MOST_WORDS", 2)
    assert birds.union(bees).words is None  # too many


def test_save_and_load(tokenizer, tmp_path):
    assert Seen.load(tmp_path) is None
    known = Seen.of(TRAINED_ON, tokenizer)
    known.save(tmp_path)
    loaded = Seen.load(tmp_path)
    np.testing.assert_array_equal(loaded.ids, known.ids)
    assert (
        loaded.words
        == known.words
        == {"나는", "나비를", "봤다", "a", "bird", "bee", "비가", "와요"}
    )
