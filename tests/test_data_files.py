"""Laws of reading, encoding and describing parallel text."""

import gzip
import io
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_transformer import data
from keras_transformer.data.lines import arriving_lines

pytestmark = pytest.mark.tensorflow_only  # needs no backend


class Words:
    """A word-level stand-in for `text.Tokenizer`: the first word's id is 4."""

    pad_id, start_id, end_id = 0, 2, 3

    def __init__(self, words="a b c d e f g"):
        self.model_proto = words.encode()
        self.ids = {word: 4 + i for i, word in enumerate(words.split())}
        self.calls = 0

    def encode(self, texts):
        self.calls += 1
        return [[self.ids[word] for word in text.split()] for text in texts]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_end_with_newline_only(tmp_path):
    lines = ["a\u2028b", "c\x0bd\x0ce\x1cf", "g\x85h\u2029i", " edge ", "", "last\rinside"]
    source = write(tmp_path / "a.txt", "\ufeff" + "\r\n".join(lines) + "\r\n")
    target = write(tmp_path / "b.txt", "\n".join(lines))  # without a newline at the end
    assert data.read_parallel(source, target) == [(line, line) for line in lines]


MARK = "\ufeff"
# Every line begins with a mark, as if marked files had been joined. One mark inside a line is text.
MARKED = f"{MARK}a\n{MARK}b{MARK}c\r\n{MARK}\n{MARK}{MARK}d\nlast"
UNMARKED = ["a", f"b{MARK}c", "", f"{MARK}d", "last"]


def test_files_and_pipes_are_read_alike(tmp_path):
    packed = write(tmp_path / "a.gz", gzip.compress(MARKED.encode()))
    plain = write(tmp_path / "a.txt", MARKED)
    assert data.read_lines(plain) == data.read_lines(packed) == UNMARKED
    assert data.read_parallel(plain, packed) == list(zip(UNMARKED, UNMARKED, strict=True))
    assert data.read_tsv(write(tmp_path / "a.tsv", f"{MARK}a\tb\n{MARK}c\td\n")) == [
        ("a", "b"),
        ("c", "d"),
    ]
    [(lines, size)] = arriving_lines(io.BytesIO(MARKED.encode()), most=9)
    assert lines == UNMARKED and size == len(MARKED.encode()) + 1
    with open(plain, "rb") as file:
        assert [lines for lines, _ in arriving_lines(file, most=2)] == [
            UNMARKED[:2],
            UNMARKED[2:4],
            UNMARKED[4:],
        ]


def test_a_pipe_gives_what_has_arrived():
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb", buffering=0) as writer:
        arriving = arriving_lines(reader, most=9)
        writer.write("가\nb\nhal".encode())
        assert next(arriving) == (["가", "b"], 6)
        writer.write(b"f\n")
        assert next(arriving) == (["half"], 5)
        writer.write(b"c\n\xff\nd\n")
        assert next(arriving) == (["c"], 2)  # lines before a bad line come first
        with pytest.raises(ValueError, match="standard input, line 5: byte 0xff is not UTF-8"):
            next(arriving)


# All characters, except those that end a line and surrogates, which are no text.
TEXTS = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=9)
TEXTS |= st.sampled_from(["a\tb", "\r", "a\r\r", MARK, MARK + "a", "a\u2028b", "", "\x85\x0b"])


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_pairs_that_are_written_are_read_again(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("pairs")
    data.write_parallel(pairs, folder / "a", folder / "b")
    assert data.read_parallel(folder / "a", folder / "b") == pairs


def test_what_no_line_can_hold_is_not_written(tmp_path):
    for pairs, message in (([("a", "b\nc")], "cannot hold"), ([], "nothing to write")):
        with pytest.raises(ValueError, match=message):
            data.write_parallel(pairs, tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_only_one_carriage_return_is_stripped(tmp_path):
    path = write(tmp_path / "a.txt", "a\r\r\nb\n")
    assert data.read_parallel(path, path) == [("a\r", "a\r"), ("b", "b")]


def test_gz_reads_as_plain_text(tmp_path):
    content = "가나 다\tx\n라\ty\n".encode()
    plain, packed = (
        write(tmp_path / "a.txt", content),
        write(tmp_path / "a.txt.gz", gzip.compress(content)),
    )
    assert data.read_parallel(plain, packed) == [("가나 다\tx",) * 2, ("라\ty",) * 2]
    assert data.read_tsv(packed) == data.read_tsv(str(plain)) == [("가나 다", "x"), ("라", "y")]


def test_tsv_columns(tmp_path):
    path = write(tmp_path / "a.tsv", "1\t2\t3\n4\t\t6\t7\n")
    assert data.read_tsv(path) == [("1", "2"), ("4", "")]
    assert data.read_tsv(path, source_column=2, target_column=0) == [("3", "1"), ("6", "4")]


@pytest.mark.parametrize("columns", [(0, 2), (2, 0)])
def test_tsv_with_too_few_columns_names_the_line(tmp_path, columns):
    path = write(tmp_path / "a.tsv", "1\t2\t3\n1\t2\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2: found 2 .* need 3"):
        data.read_tsv(path, *columns)


def test_tsv_rejects_columns_that_are_none_or_the_same(tmp_path):
    with pytest.raises(ValueError, match="counted from 0"):
        data.read_tsv(write(tmp_path / "a.tsv", "1\t2\n"), target_column=-1)
    with pytest.raises(ValueError, match="two columns, got source_column=1, target_column=1"):
        data.read_tsv(tmp_path / "a.tsv", source_column=1)


def test_unequal_lengths_give_both_counts(tmp_path):
    a, b = write(tmp_path / "a", "1\n2\n3\n"), write(tmp_path / "b", "1\n2\n\n\n4\n")
    with pytest.raises(ValueError, match=r"a has 3 and .*b has 5"):
        data.read_parallel(a, b)


@pytest.mark.parametrize(
    ("text", "encoding", "line"),
    [("ok\nok\nMänner\n", "iso-8859-1", 3), ("ok\n한국\n", "cp949", 2), ("a\nb\n", "utf-16", 1)],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_encoding_names_file_line_and_cure(tmp_path, text, encoding, line, suffix):
    content = text.encode(encoding)
    path = write(tmp_path / f"a{suffix}", gzip.compress(content) if suffix else content)
    with pytest.raises(ValueError, match=rf"a{suffix}, line {line}: .*iconv") as error:
        data.read_parallel(path, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"a"), "begins like gzip"),
        (b"PK\x03\x04\xff", "begins like zip"),
        ("a\n가".encode("utf-16"), "-f UTF-16 "),
        ("ab\ncd\n".encode("utf-16-le"), "-f UTF-16LE "),
        ("\nab\n".encode("utf-16-be"), "-f UTF-16LE .*UTF-16BE"),
        ("a\n나는 집에 간다 (3)\n".encode("cp949"), "Korean in CP949.* -f CP949 "),
        ("뷁 똠방각하\n".encode("cp949"), "-f CP949 "),
        ("für Änderungen, naïve façade\n".encode("latin-1"), "-f ISO-8859-1 "),
        ("ÄÖ\xff\n".encode("latin-1"), "-f ISO-8859-1 "),
    ],
)
def test_what_the_bytes_look_like_decides_the_advice(tmp_path, content, advice):
    with pytest.raises(ValueError, match=rf"a, line \d: .*{advice}"):
        data.read_lines(write(tmp_path / "a", content))
    with pytest.raises(ValueError, match=rf"standard input, line \d: .*{advice}"):
        list(arriving_lines(io.BytesIO(content), 9))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty", b"", "empty"),
        ("bom", b"\xef\xbb\xbf", "empty"),
        ("plain.gz", b"plain", "not a whole file of that kind"),
        ("cut.gz", gzip.compress(b"text " * 999)[:-9], "not a whole file of that kind"),
        ("empty.gz", gzip.compress(b""), "empty"),
    ],
)
def test_unusable_files(tmp_path, name, content, says):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=says) as error:
        data.read_tsv(path)
    assert name in str(error.value)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        data.read_parallel(tmp_path / "nowhere.txt", tmp_path)
    with pytest.raises(ValueError, match="is a directory"):
        data.read_tsv(tmp_path)


def test_encoding_keeps_order_and_counts_what_it_drops():
    pairs = [
        ("a b c", "g"),
        ("", "a"),
        ("b", " \t"),
        ("a", "a b c d"),
        ("a b c d e", "a"),
        ("c", "d e"),
    ]
    encoded = data.encode_pairs(pairs, Words(), max_length=4)
    assert (len(encoded), encoded.dropped_empty, encoded.dropped_long) == (2, 2, 2)
    assert [encoded.source(i).tolist() for i in range(2)] == [[4, 5, 6], [6]]
    assert [encoded.target(i).tolist() for i in range(2)] == [[10], [7, 8]]
    assert encoded.source_lengths.tolist() == [3, 1]
    assert encoded.target_lengths.tolist() == [1, 2]
    assert encoded.source_ids.dtype == encoded.target_ids.dtype == np.int32


def test_blank_sides_are_empty_also_to_a_lossless_tokenizer():
    words = Words()
    words.encode = lambda texts: [[5] * len(text) for text in texts]
    encoded = data.encode_pairs([("a", " \t"), ("\u3000", "a"), ("a", "a")], words)
    assert (len(encoded), encoded.dropped_empty) == (1, 2)


def test_each_side_has_its_own_tokenizer_and_specials():
    target = Words("e d c")
    target.start_id, target.end_id = 11, 13
    encoded = data.encode_pairs([("a c", "c d")], Words(), target)
    assert encoded.source(0).tolist() == [4, 6]
    assert encoded.target(0).tolist() == [6, 5]
    assert (encoded.source_end_id, encoded.target_start_id, encoded.target_end_id) == (3, 11, 13)


def test_many_lines_are_encoded_as_one_by_one():
    words = "a b c d e f g".split()
    pairs = [(" ".join(words[: 1 + i % 7]), " ".join(words[i % 5 :])) for i in range(20_011)]
    encoded = data.encode_pairs(pairs, Words())
    for i in (0, 1, 9_999, 10_000, 10_001, 20_010):
        assert [encoded.source(i).tolist()] == Words().encode([pairs[i][0]])
        assert [encoded.target(i).tolist()] == Words().encode([pairs[i][1]])


class Lines:
    """Pairs that are made again at every reading and are never stored."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for i in range(self.count):
            yield " ".join("abcdefg"[: 1 + i % 7]), "" if i % 11 == 3 else "g f e"[: 1 + i % 5]


# Fails if: long pairs are counted in the last chunk only.
def test_a_stream_is_encoded_as_the_list_of_it(tmp_path):
    stream, cache = Lines(20_011), tmp_path / "pairs.npz"
    expected = data.encode_pairs(list(stream), Words(), max_length=7)
    empty = sum(not target for _, target in stream)
    long = sum(len(source.split()) + 1 > 7 for source, target in stream if target)
    assert (expected.dropped_empty, expected.dropped_long) == (empty, long)
    assert min(empty, long) > 1000
    assert same(expected, data.encode_pairs(iter(list(stream)), Words(), max_length=7))
    words = Words()
    for _ in range(2):
        assert same(expected, data.encode_pairs(stream, words, max_length=7, cache=cache))
    assert words.calls == 2 * 3  # both sides of 3 chunks, once; then the cache is read


# Fails if: a stream is kept as a list.
def test_a_stream_is_never_held_as_text():
    class Text(str):
        alive = most = 0

        def __init__(self, text):
            Text.alive += 1
            Text.most = max(Text.most, Text.alive)

        def __del__(self):
            Text.alive -= 1

    stream = ((Text("a b"), Text("c")) for _ in range(50_000))
    assert len(data.encode_pairs(stream, Words())) == 50_000
    assert Text.most < 60_000  # of 100,000 texts; two chunks of 10,000 pairs have 40,000


# Fails if: a generator is accepted together with a cache.
def test_a_cache_refuses_what_can_be_read_only_once(tmp_path):
    with pytest.raises(ValueError, match="this generator can be read only once; give a list"):
        data.encode_pairs((pair for pair in [("a", "b")]), Words(), cache=tmp_path / "pairs.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("special", ["start", "end"])
def test_a_start_or_an_end_that_is_padding_is_refused(special):
    words = Words()
    setattr(words, f"{special}_id", 0)
    with pytest.raises(ValueError, match=f"{special} id is 0.*padding"):
        data.encode_pairs([("a", "b")], Words(), words)
    data.encode_pairs([("a", "b")], Words())
    words.special_ids, words.encode = list, lambda text: [4]
    with pytest.raises(ValueError, match=f"{special} id is 0.*padding"):
        data.encode_texts(["a"], words)


def test_nothing_left_and_wrong_pad_are_errors():
    with pytest.raises(
        ValueError, match="1 of 2 have an empty side, 1 are longer than max_length=2"
    ):
        data.encode_pairs([("a", ""), ("a b", "a")], Words(), max_length=2)
    with pytest.raises(ValueError, match="no pair"):
        data.encode_pairs([], Words())
    words = Words()
    words.pad_id = 1
    with pytest.raises(ValueError, match="pad_id is 1"):
        data.encode_pairs([("a", "a")], words)


def same(a, b):
    return vars(a).keys() == vars(b).keys() and all(
        np.array_equal(value, vars(b)[name]) for name, value in vars(a).items()
    )


def test_cache_is_reused_and_equal(tmp_path):
    pairs, words, cache = (
        [("a b", "c"), ("d", ""), ("e", "f g")],
        Words(),
        tmp_path / "sub" / "pairs.npz",
    )
    first = data.encode_pairs(pairs, words, cache=cache)
    calls = words.calls
    second = data.encode_pairs(pairs, words, cache=str(cache))
    assert words.calls == calls
    assert same(first, second) and same(first, data.encode_pairs(pairs, Words()))
    assert [p.name for p in cache.parent.iterdir()] == ["pairs.npz"]  # no temporary file is left


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": [("a b", " c"), ("d", "f")]},
        {"pairs": [("a", " b c"), ("d", "e")]},  # the same characters, cut elsewhere
        {"pairs": [(" c", "a b"), ("e", "d")]},
        {"tokenizer": Words("g f e d c b a"), "target_tokenizer": Words()},
        {"target_tokenizer": Words("g f e d c b a")},
        {"max_length": 3},
    ],
)
def test_cache_is_made_anew_when_anything_changes(tmp_path, change):
    arguments = {"pairs": [("a b", " c"), ("d", "e")], "tokenizer": Words(), "max_length": 5}
    cache = tmp_path / "pairs.npz"
    data.encode_pairs(**arguments, cache=cache)
    changed = data.encode_pairs(**arguments | change, cache=cache)
    assert same(changed, data.encode_pairs(**arguments | change))
    before = cache.stat().st_mtime_ns
    assert same(changed, data.encode_pairs(**arguments | change, cache=cache))
    assert cache.stat().st_mtime_ns == before  # the new cache is reused


def test_cache_never_replaces_another_file(tmp_path):
    text, arrays = write(tmp_path / "notes.txt", "mine"), tmp_path / "arrays.npz"
    np.savez(arrays, weights=np.arange(3))
    for path in (text, arrays):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not a cache"):
            data.encode_pairs([("a", "b")], Words(), cache=path)
        assert path.read_bytes() == before


def test_failed_write_leaves_the_old_cache_and_no_other_file(tmp_path, monkeypatch):
    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    cache = tmp_path / "pairs.npz"
    data.encode_pairs([("a", "b")], Words(), cache=cache)
    before = cache.read_bytes()
    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        data.encode_pairs([("a", "c")], Words(), cache=cache)
    assert list(tmp_path.iterdir()) == [cache] and cache.read_bytes() == before


def test_report_counts():
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    pairs = [
        ("ab", "cd"),
        ("ab", "cd"),
        ("ab", "x" * 8),
        (composed, "y"),
        (decomposed, "y"),
        ("", "z"),
    ]
    result = data.report(pairs, validation=[(decomposed, "y"), ("ab", "new"), ("new", "y")])
    assert (result.pairs, result.duplicate_pairs) == (6, 2)
    assert (result.distinct_sources, result.distinct_targets) == (3, 4)
    assert (
        result.validation_pairs,
        result.validation_pairs_seen,
        result.validation_sources_seen,
    ) == (3, 1, 2)
    assert result.unit == "characters"
    assert result.source_length == (8 / 6, 2, 2)
    assert result.ratio_outside == 1  # 8 : 2; the pair with an empty side has no ratio
    assert result.ratio_percentiles[1] == 1
    assert result.dropped_empty is None and "dropped" not in str(result)


def test_the_report_compares_as_a_reader_does():
    """Fails if: composed and decomposed Korean, or spaces at the ends, count as two texts."""
    pairs = [("나는 간다", "I go"), ("너는 간다", "you go")]
    other = [
        (unicodedata.normalize("NFD", f" {source}\u3000"), f"{target} ") for source, target in pairs
    ]
    found = data.report(pairs, validation=other)
    assert (found.validation_pairs_seen, found.validation_sources_seen) == (2, 2)
    assert data.report(pairs + other).duplicate_pairs == 2


def test_report_of_encoded_pairs():
    pairs = [("a b c d e", "a"), ("a", "b c"), ("", "a"), ("a b c d e f g", "a")]
    result = data.report(pairs, data.encode_pairs(pairs, Words(), max_length=6))
    assert result.unit == "tokens"
    assert (result.dropped_empty, result.dropped_long, result.ratio_outside) == (1, 1, 1)
    assert result.source_length[2] == 5 and result.target_length[0] == 1.5
    assert "1 with an empty side, 1 too long" in str(result)
    with pytest.raises(ValueError, match="empty"):
        data.report([])
