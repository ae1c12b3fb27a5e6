"""Tests of the record of seen text, and of the remarks about unseen text."""

import unicodedata

import numpy as np
import pytest

from keras_transformer import text
from keras_transformer.text import seen
from keras_transformer.text.seen import Seen

pytestmark = pytest.mark.tensorflow_only  # needs no backend

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
    assert known.unseen("※", tokenizer) == ["※"]  # punctuation is a piece, but no word


def test_of_many_words_only_pieces_are_kept(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(seen, "MOST_WORDS", 5)
    known = Seen.of(TRAINED_ON, tokenizer)
    assert known.words is None
    known.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"seen_ids.npy", "seen.json"}
    assert Seen.load(tmp_path).unseen("비를 ※", tokenizer)[-1] == "※"


def test_a_union_has_what_either_had(tokenizer, monkeypatch):
    birds, bees = (Seen.of([line], tokenizer) for line in ("A bird", "a bee ※"))
    union = birds.union(bees)
    assert union.words == {"a", "bird", "bee"}
    np.testing.assert_array_equal(union.ids, Seen.of(["A bird", "a bee ※"], tokenizer).ids)
    assert birds.union(Seen(bees.ids, None)).words is None
    assert Seen(bees.ids, None).union(birds).words is None
    monkeypatch.setattr(seen, "MOST_WORDS", 2)
    assert birds.union(bees).words is None  # together they have too many words


def test_save_and_load(tokenizer, tmp_path):
    assert Seen.load(tmp_path) is None
    known = Seen.of(TRAINED_ON, tokenizer)
    known.save(tmp_path)
    loaded = Seen.load(tmp_path)
    np.testing.assert_array_equal(loaded.ids, known.ids)
    assert (loaded.invisible, loaded.longest) == (
        set(),
        max(map(len, tokenizer.encode(TRAINED_ON))),
    )
    assert (
        loaded.words
        == known.words
        == {"나는", "나비를", "봤다", "a", "bird", "bee", "비가", "와요"}
    )


STRANGE = "\t\u2028\u3000\xa0\u2009\x1f\u200b\u200e\ufeff\xad\0"


def test_what_training_never_saw_of_spaces_is_read_as_a_space(tokenizer):
    """Fails if: a space of another kind ruins a sentence of a model that was trained on " "."""
    known = Seen.of(TRAINED_ON, tokenizer)
    for line in TRAINED_ON:
        assert known.plain(line) == line
    for each in STRANGE:
        space = " " if each.isspace() else ""
        for line, expected in (
            (f"A{each}bird", f"A{space}bird"),
            (f"{each}A bird{each}", "A bird"),
            (f"A {each} {each}bird", "A bird"),
            (each, ""),
        ):
            assert known.plain(line) == expected, (line, each)
    assert known.plain("  A   bird ") == "A bird"
    assert known.plain("\ue000 A\u0378") == "\ue000 A\u0378"  # not printable, but no spaces


def test_what_training_saw_of_spaces_stays_as_it_is(tokenizer, tmp_path):
    """Fails if: a text loses characters that the model has learned to distinguish."""
    saw = [*STRANGE, "two  spaces"]
    Seen.of(saw, tokenizer).save(tmp_path)
    known = Seen.load(tmp_path)
    for line in (STRANGE, "\tA  bird ", "A\u3000\u200e bird\xa0"):
        assert known.plain(line) == line
    assert known.plain("\u2003A  bird") == "A  bird"  # training never saw this space
    only = Seen.of(["a\u3000b"], tokenizer)
    assert only.plain("a\u3000\xa0b \u3000 c") == "a\u3000 b \u3000 c"
    assert only.union(known).plain(STRANGE) == STRANGE


def test_older_runs_change_no_text(tokenizer, tmp_path):
    Seen.of(TRAINED_ON, tokenizer).save(tmp_path)
    (tmp_path / "seen.json").unlink()
    old = Seen.load(tmp_path)
    assert old.plain(STRANGE) == STRANGE
    assert old.remarks("A bird " * 9, tokenizer.encode("A bird " * 9), tokenizer) == {}
    assert old.union(Seen.of(["a\tb"], tokenizer)).plain(STRANGE) == STRANGE


def test_remarks_name_what_is_strange(tokenizer):
    known = Seen.of(TRAINED_ON, tokenizer)

    def remarks(text, but=()):
        return known.remarks(text, tokenizer.encode(known.plain(text)), tokenizer, but)

    for line in [*TRAINED_ON, "", "   ", "\u3000\t"]:
        assert remarks(line) == {}
    found = remarks("A\u3000bird\u200e  a beard")
    assert {"unseen", "invisible"} <= found.keys() and "beard (in " in found["unseen"]
    for part in (
        "U+3000 IDEOGRAPHIC SPACE (read as a space)",
        "MARK (left out)",
        "in a row",
    ):
        assert part in found["invisible"], found
    longest = max(map(len, tokenizer.encode(TRAINED_ON)))
    assert known.longest == longest
    long = "비가 와요 " * longest
    assert f"the longest there had {longest}" in remarks(long)["long"]
    assert remarks(long, but=Seen.REMARKS) == {}
