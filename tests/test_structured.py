"""Laws of documents, tags and placeholders: what is taken out of a text, and put back."""

import collections
import html
import re
import sys
import types
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer.decoding import Hypothesis, translate_structured
from keras_transformer.decoding.sentences import Sentence, join_sentences, split_sentences
from keras_transformer.decoding.tags import ITEM, take_out

pytestmark = pytest.mark.tensorflow_only

WORD = st.sampled_from(["a", "b.", "(é", '"가",', "a&b", "<c"])
ALONE = st.sampled_from(
    ["<br/>", "<x id='1>2'/>", "<!-- c -->", "&foo;", "{n}", "{{ n }}", "%s", "$1", "%(n)d"]
)
SPACE = st.sampled_from(["", " ", "  "])


def in_a_row(*parts):
    pairs = st.lists(st.tuples(st.one_of(*parts), SPACE), max_size=5)
    return pairs.map(lambda some: "".join(part for pair in some for part in pair))


def escaped(word):
    return html.escape(word, quote=False)


PIECES = WORD.map(escaped), ALONE
# Well-formed XML: a pair of tags holds words, whole but for their punctuation.
XML = st.recursive(
    in_a_row(*PIECES),
    lambda inside: in_a_row(
        *PIECES,
        st.tuples(st.sampled_from(["b", "i"]), inside).map(" (<{0[0]}>{0[1]}</{0[0]}>, ".format),
    ),
    max_leaves=8,
)
# Tags without counterpart, tags that cross or part a word, and signs that are no tags.
SIGNS = ["<b>", "</b>", "<I>", "</i>", "<br>", "{n}", "%s", "<", "&amp;", "a", "b.", " "]
BROKEN = st.lists(st.sampled_from(SIGNS)).map("".join)
LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)
TRANSLATION = st.lists(st.sampled_from(["x", "y,", "(é", '("나",', "."]), max_size=8).map(" ".join)


def items_of(text):
    """How often each tag and placeholder is in a text. HTML's entities are none."""
    found = [match[0] for match in ITEM.finditer(text)]
    return collections.Counter(item for item in found if html.unescape(item) == item)


def paths_of(text):
    """The tags around each tag of XML, in any order."""
    found = []

    def visit(element, path):
        found.append((*path, element.tag))
        for child in element:
            visit(child, (*path, element.tag))

    visit(ElementTree.fromstring(f"<all>{text.replace('&foo;', '')}</all>"), ())
    return sorted(found)


# Fails if: an item without words is left out; one alone does not part words.
@given(XML | BROKEN, TRANSLATION, LINKS)
def test_every_item_is_put_back_once_and_the_words_are_the_translation(text, translation, links):
    found = take_out(text).put_back(translation, links)
    assert items_of(found) == items_of(text)
    assert take_out(found).text.split() == translation.split()


# Fails if: an item without words is left out, or a pair is written as two items alone.
@given(XML, st.lists(WORD, max_size=8).map(" ".join), LINKS)
def test_well_formed_stays_well_formed_and_nested_stays_nested(text, translation, links):
    tagged = take_out(text)
    if tagged.escapes:
        assert paths_of(tagged.put_back(translation, links)) == paths_of(text)


# Fails if: "&" is not written as "&amp;" again; one alone does not part words.
@given(XML)
def test_a_translation_by_the_same_words_is_the_text(text):
    tagged = take_out(text)
    found = tagged.put_back(tagged.text, [(i, i) for i in range(len(tagged.text.split()))])
    assert re.sub(r"\s", "", found) == re.sub(r"\s", "", text)


@given(st.text("ab<>& {}%s", max_size=9), TRANSLATION, LINKS)
def test_a_text_without_items_is_translated_as_it_is(text, translation, links):
    if not (ITEM.search(text)):
        assert take_out(text).text == text
        assert take_out(text).put_back(translation, links) == translation


# Fails if: tags without counterpart are taken for pairs, or crossing ones for nested ones; "</td>"
# and "<td>" do not part words; "&" in a text with "<" is escaped; HTML's entities are items; words
# touch an item as others did; punctuation of the source or the translation stays inside, or moves
# from another word, or moves though the source has it inside; two pairs share a word; the longer of
# two pairs is placed first, or keeps its shorter side; a word outside of its parent places an item;
# an item alone goes into a pair, or before one that it followed.
@pytest.mark.parametrize(
    ("text", "plain", "translation", "links", "expected"),
    [
        # A pair encloses what belongs to its words, and no punctuation around them.
        ("Press <b>the key</b> now.", "Press the key now.", "Die Taste jetzt.", "1-0 2-1 3-2",
         "<b>Die Taste</b> jetzt."),
        ('Click <b>"<i>OK</i>"</b>, (<a href="x">go</a>).', 'Click "OK", (go).',
         'Auf "OK", (gehen).', "1-1 2-2", 'Auf <b>"<i>OK</i>"</b>, (<a href="x">gehen</a>).'),
        ("(<b> (a, </b>, b", "( (a, , b", "( (a, , b", "0-0 1-1 2-2 3-3", "( <b>(a,</b> , b"),
        ("(<b>a</b>.", "(a.", "( a .", "0-0 0-1 0-2", "<b>( a .</b>"),
        ("The <a><b>car</b></a> came.", "The car came.", "Es kam der Wagen.", "1-3",
         "Es kam der <a><b>Wagen</b></a>."),
        ("A <b>car.</b> It", "A car. It", "It car. A", "1-1", "It <b>car.</b> A"),
        # Between the first and the last word; side by side they do not overlap.
        ("<b>a b</b> c", "a b c", "b c a", "1-0 2-1 0-2", "<b>b c a</b>"),
        ("<b>a b</b> <i>c d</i>", "a b c d", "a c d b e", "0-0 2-1 3-2 1-3 9-4",
         "<b>a</b> <i>c d</i> b e"),
        ("<b>a <i>b</i></b> <u>c d</u>", "a b c d", "A C D e B", "0-0 1-4 2-1 3-2",
         "<b>A <i></i></b> <u>C D</u> e B"),
        ("<b>a</b>b<i>c</i>", "abc", "x", "0-0", "<b>x</b> <i></i>"),
        # A pair whose words have no counterpart.
        ("a <b>b</b> c", "a b c", "c", "2-0", "<b></b> c"),
        # Alone: before the next word, or at the end, and never inside another pair.
        ("a {n} b", "a b", "b a", "1-0 0-1", "{n} b a"),
        ("a %s <b>b c</b>", "a b c", "c b", "2-0 1-1", "%s <b>c b</b>"),
        ("a b %(n)s.", "a b .", "x y", "0-0 1-1", "x y %(n)s"),
        ("Hi {n}, how?", "Hi , how?", "He, wie?", "0-0 2-1", "He, {n} wie?"),
        ("Hi {n}!", "Hi !", "He !", "0-0 1-1", "He {n}!"),
        ("$1a%s", "a", "", "", "$1 %s"),
        ("{a}{b} x", "x", "x", "0-0", "{a}{b} x"),
        ("x<br/>y", "x y", "x y", "0-0 1-1", "x<br/>y"),
        # What has no counterpart is alone, and what is no tag is text.
        ("<p>a<br>b <i>c</p>", "a b c", "a b c", "0-0 1-1 2-2", "<p>a<br> b <i> c</p>"),
        ("<b>a <i>b</b> c</i>", "a b c", "a b c", "0-0 1-1 2-2", "<b>a <i> b</b> c</i>"),
        ("<td>a</td><td>b</td>c", "a bc", "x", "0-0", "<td>x</td> <td></td>"),
        ("a < b, 5 % & $15", "a < b, 5 % & $15", "a  < c", "", "a  < c"),
        ("a < b <b>c</b>", "a < b c", "a < b c", "0-0 1-1 2-2 3-3", "a < b <b>c</b>"),
        # Entities are read and written. One that HTML does not have is an item.
        ("Q&amp;A &lt;3 &my; <b>x</b>", "Q&A <3 x", "x & <3", "2-0", "&my; <b>x</b> &amp; &lt;3"),
        ("caf&eacute;", "café", "café", "0-0", "café"),
        ("", "", "", "", ""),
    ],
)  # fmt: skip
def test_tags_go_where_their_words_go(text, plain, translation, links, expected):
    tagged = take_out(text)
    assert tagged.text == plain
    links = [tuple(map(int, link.split("-"))) for link in links.split()]
    assert tagged.put_back(translation, links) == expected


def test_deep_nesting_is_no_deep_recursion():
    depth = 2000
    text = "<b>" * depth + "a" + "</b>" * depth
    assert take_out(text).put_back("a", [(0, 0)]) == text


# --- documents


# Fails if: white space that is a part by itself is lost.
@given(
    st.lists(
        st.sampled_from(
            [
                "Hi. ",
                "Plan B\u00a0.",
                "Dr. Lee came.\t",
                "No end",
                " ",
                "\n\n",
                "「はい。」",
                "예.  ",
            ]
        )
    )
)
def test_sentences_and_their_white_space_are_the_text(parts):
    pytest.importorskip("sentencex", reason="sentencex is not installed")
    text = "".join(parts)
    found = split_sentences(text, "en")
    assert "".join(part for sentence in found for part in sentence) == text.strip()
    assert all(sentence.text == sentence.text.strip() != "" for sentence in found)


def test_sentences_end_by_the_rules_of_their_language():
    pytest.importorskip("sentencex", reason="sentencex is not installed")
    assert split_sentences(" Dr. Lee came.  He left. ", "en") == [
        Sentence("Dr. Lee came.", "  "),
        Sentence("He left.", ""),
    ]
    assert [each.text for each in split_sentences("그는 갔다. 끝.", "ko")] == ["그는 갔다.", "끝."]
    assert [each.text for each in split_sentences("はい。いいえ。", "ja")] == ["はい。", "いいえ。"]
    assert split_sentences(" \n", "en") == []


# Fails if: white space is lost, or added in wide text; links are not counted on, or across words
# that continue without white space.
@pytest.mark.parametrize(
    ("sentences", "translations", "text", "links"),
    [
        ([("a b.", "  "), ("c.", "")], ["x.", "y z."], "x.  y z.", [(0, 0), (2, 1), (2, 2)]),
        ([("あ。", ""), ("い。", "")], ["x.", "y."], "x. y.", [(0, 0), (0, 1)]),
        ([("あ。", ""), ("い。", "")], ["가。", "나。"], "가。나。", [(0, 0), (0, 0)]),
        ([("a.", " "), ("b c.", "\t"), ("d.", "")], ["x.", "", "y."], "x. y.", [(0, 0), (3, 1)]),
        ([], [], "", []),
    ],
)
def test_translations_are_joined_and_words_counted_in_the_whole(
    sentences, translations, text, links
):
    # In each sentence the first word belongs to all words of the translation.
    pairs = [(each, [(0, i) for i in range(len(each.split()))]) for each in translations]
    assert join_sentences([Sentence(*each) for each in sentences], pairs) == (text, links)


class Reverser:
    """Translates into the words in reverse and in capitals, and aligns them."""

    models = [
        types.SimpleNamespace(
            attention_tensors=None,
            decoder=types.SimpleNamespace(
                num_layers=1, layers=[types.SimpleNamespace(num_heads=1)]
            ),
        )
    ]

    def __init__(self):
        self.asked = []

    def n_best(self, texts, n, **options):
        self.asked.append((texts, n, options))
        return [
            [
                Hypothesis(
                    " ".join(reversed(text.split())).upper(), list(range(len(text.split()))), 0.0
                )
            ]
            for text in texts
        ]

    def align(self, pairs, batch_size, layer, heads):
        return [[(len(ids) - 1 - i, i) for i in ids] for _, ids in pairs]


# Fails if: each document takes one translation; a prefix is refused without splitting.
def test_documents_with_tags_are_translated_sentence_by_sentence_in_one_batch():
    pytest.importorskip("sentencex", reason="sentencex is not installed")
    translator = Reverser()
    texts = ["<p>One two. <b>Three</b> four.</p>", "", "  ", "Plain {n} text."]
    found = translate_structured(translator, texts, split="en", tags=True, beam_size=2)
    assert [each.text for each in found] == [
        "<p>TWO. ONE FOUR. <b>THREE</b></p>",
        "",
        "",
        "{n} TEXT. PLAIN",
    ]
    assert found[0].links == [(1, 0), (0, 1), (3, 2), (2, 3)] and found[1].links == []
    sources = ["One two.", "Three four.", "Plain text."]
    assert translator.asked == [(sources, 1, {"beam_size": 2})]
    plain = translate_structured(translator, ["One two. Three", "a  b"])
    assert plain == [("THREE TWO. ONE", None), ("B A", None)]
    translate_structured(translator, ["a"], tags=True, prefix="b")
    assert translator.asked[-1] == (["a"], 1, {"prefix": "b"})


# Fails if: the translator's attention is not asked for before translating.
def test_what_cannot_be_translated_so_is_refused(monkeypatch):
    translator = Reverser()
    for options, message in (
        ({"split": "en", "prefix": "a"}, "prefix belongs to a single sentence"),
        ({"split": "en", "terminology": [["a"]]}, "terminology belongs to a single sentence"),
        ({"tags": True, "layer": 1}, "layer is an integer from -1 to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            translate_structured(translator, ["a"], **options)
    translator.models = []
    with pytest.raises(ValueError, match="CTranslate2 gives no attention"):
        translate_structured(translator, ["a"], tags=True)
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(ValueError, match=r"pip install keras-transformer-kit\[split\]"):
        translate_structured(translator, ["a"], split="en")
    assert translator.asked == []
