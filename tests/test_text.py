"""Laws of the tokenizer: lossless, composed, special ids separate, the same inside a graph."""

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_transformer import text

PAIRS = [
    ("A man rides a brown horse .", "한 남자가 갈색 말을 탄다 ."),
    ("Two dogs run over the grass .", "개 두 마리가 풀밭을 달린다 ."),
    ("The children eat apples today !", "아이들이 오늘 사과를 먹는다 !"),
    ("ein Mädchen läuft über die Straße", "une fille traverse la rue à côté"),
    ("writing <s> or <pad> <pad> or </s>", "<unk> is no id <s> , <0x41> neither"),
] * 3
HARD = "  ½ ㎏ ㅋㅋㅋ  two  spaces 👩‍👩‍👧 e\u0301 ไทย \u1112\u1161\u11ab \t … ﬁ <s> ▅ ⁇  "
# Only assigned characters, because Python and ICU know different versions of Unicode.
ANY_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cn"))
    | st.sampled_from("a man dog  \u1112\u1161\u11ab한글ㅋ½㎏👩\u200d\u0301\u0323<s>▁▅\0\n")
)
HANGUL = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3) | st.just(" "))


def trained(model_type="bpe", vocabulary_size=607, **kwargs):
    return text.train_tokenizer(PAIRS, vocabulary_size, model_type, **kwargs)


SMALL = {"bpe": 607, "unigram": 337, "char": 61, "word": 43}
TOKENIZERS = {kind: trained(kind, size) for kind, size in SMALL.items()}
BPE = TOKENIZERS["bpe"]
SPECIAL_IDS = {BPE.pad_id, BPE.unknown_id, BPE.start_id, BPE.end_id}


def kept(line):
    """Returns the text that a lossless vocabulary must give back."""
    return unicodedata.normalize("NFC", line).replace("▁", " ").strip(" ")


# Fails if: training normalizes with NFKC; spaces are not kept.
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_lossless(kind):
    @settings(deadline=None, max_examples=100)
    @given(st.lists(ANY_TEXT, min_size=1, max_size=3))
    def law(lines):
        batch = TOKENIZERS[kind].encode(lines)
        assert TOKENIZERS[kind].decode(batch) == [kept(line) for line in lines]
        assert TOKENIZERS[kind].encode(lines[0]) == batch[0]
        assert not SPECIAL_IDS & {i for ids in batch for i in ids}

    law()
    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode(HARD)) == kept(HARD)


# Fails if: encoding does not compose text (NFC).
@settings(deadline=None, max_examples=50)
@given(HANGUL)
def test_decomposed_korean_gives_the_same_ids(line):
    decomposed = unicodedata.normalize("NFD", line)
    for tokenizer in TOKENIZERS.values():
        assert tokenizer.encode(decomposed) == tokenizer.encode(line)
        assert tokenizer.pieces(decomposed) == tokenizer.pieces(line)


# Fails if: training does not compose text (NFC).
def test_training_composes_text():
    decomposed = [tuple(unicodedata.normalize("NFD", side) for side in pair) for pair in PAIRS]
    assert text.train_tokenizer(decomposed, 607).model_proto == BPE.model_proto


@pytest.mark.parametrize("kind", text.MODEL_TYPES)
def test_special_ids_never_come_from_text(kind):
    tokenizer = TOKENIZERS[kind]
    control = {tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id}
    assert (tokenizer.pad_id, len(control | {tokenizer.unknown_id})) == (0, 4)
    for id in control | {tokenizer.unknown_id}:
        piece = tokenizer.id_to_piece(id)
        for line in (piece, f"a {piece} b", f"a{piece}b", piece * 2):
            assert not control & set(tokenizer.encode(line))
            assert tokenizer.decode(tokenizer.encode(line)) == line or kind in ("char", "word")


# Fails if: decoding keeps pad or start; it does not stop at the first end.
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_decode_leaves_special_ids_out(data):
    ids = BPE.encode(data.draw(ANY_TEXT))
    expected = BPE.decode(ids)
    skipped = st.lists(st.sampled_from([BPE.pad_id, BPE.start_id]), max_size=2)
    noisy = [i for id in ids for i in [*data.draw(skipped), id]] + data.draw(skipped)
    after = data.draw(st.lists(st.integers(0, BPE.vocabulary_size - 1), max_size=5))
    assert BPE.decode(noisy) == expected
    assert BPE.decode([*noisy, BPE.end_id, *after]) == expected
    assert BPE.decode(np.array([[*noisy, BPE.end_id, *after]], "int32")) == [expected]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(text.MODEL_TYPES), st.lists(st.integers(0, 67), max_size=13))
def test_decode_takes_whatever_a_model_emits(kind, ids):
    # Multiplying by 9 also reaches the bytes and pieces of the larger vocabularies.
    ids = [(i * 9) % TOKENIZERS[kind].vocabulary_size for i in ids]
    decoded = TOKENIZERS[kind].decode(ids)
    assert isinstance(decoded, str)
    assert TOKENIZERS[kind].decode(np.array(ids, "int64")) == decoded
    assert TOKENIZERS[kind].decode([np.int32(i) for i in ids]) == decoded
    assert TOKENIZERS[kind].decode([np.array(ids, "int32"), []]) == [decoded, ""]


def test_empty_batches():
    assert BPE.encode([]) == [] and BPE.encode("") == []
    assert BPE.decode([]) == "" and BPE.decode([[]]) == [""]
    assert BPE.decode(np.zeros((0, 5), "int32")) == []


@pytest.mark.parametrize("id", [-1, 607])
def test_ids_of_another_vocabulary_are_an_error(id):
    with pytest.raises(ValueError, match=rf"\[0, 607\), got .*{id}"):
        BPE.decode([7, id])


@pytest.mark.parametrize("kind", text.MODEL_TYPES)
def test_every_model_type_keeps_its_training_text(kind):
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.vocabulary_size <= SMALL[kind]
    enough = trained(kind, {"char": 73, "word": 58}.get(kind, SMALL[kind]))
    # SentencePiece learns nothing from a literal "<s>", so it is unknown in a vocabulary without
    # bytes.
    pairs = PAIRS if kind in ("bpe", "unigram") else PAIRS[:4]
    lines = [line for pair in pairs for line in pair]
    assert enough.decode(enough.encode(lines)) == lines
    assert all(enough.unknown_id not in ids for ids in enough.encode(lines))
    known = [i for i in range(4, tokenizer.vocabulary_size)]
    assert [tokenizer.piece_to_id(tokenizer.id_to_piece(np.int32(i))) for i in known] == known


def test_training_repeats_itself():
    for kind, size in SMALL.items():
        assert trained(kind, size).model_proto == TOKENIZERS[kind].model_proto
    lines = [line for pair in PAIRS for line in pair]
    assert text.train_tokenizer(iter(lines), 607).model_proto == BPE.model_proto


def test_both_sides_share_the_vocabulary():
    assert BPE.pieces("apples 사과를") == ["▁apples", "▁사과를"]


def test_no_line_is_dropped_from_training():
    lines = ["plain text", "가 " * 5000, "나 ▅ 다"]
    tokenizer = text.train_tokenizer(lines, 280, character_coverage=1.0)
    for character in "가나다":
        assert len(tokenizer.pieces("x" + character)) == len(tokenizer.pieces("x")) + 1


def test_training_is_quiet(capfd):
    trained()
    assert capfd.readouterr() == ("", "")


def test_normalization_is_an_option():
    folded = trained(normalization="nmt_nfkc", vocabulary_size=330)
    assert folded.decode(folded.encode("㎏  ㅋ")) == unicodedata.normalize("NFKC", "㎏ ㅋ")
    with pytest.raises(ValueError, match="normalization must be one of identity, .* got 'NFC'"):
        trained(normalization="NFC")
    with pytest.raises(ValueError, match="model_type must be one of bpe, .* got 'sp'"):
        trained("sp")


@pytest.mark.parametrize("nothing", [[], ["", " "], [("", "\n")]])
def test_no_text_is_an_error(nothing):
    with pytest.raises(ValueError, match="every line is empty"):
        text.train_tokenizer(nothing)


def test_one_string_is_an_error():
    with pytest.raises(ValueError, match="read_parallel"):
        text.train_tokenizer("train.en")


def test_mistyped_arguments_are_named():
    for arguments, message in (
        ({"vocabulary_size": 1}, "vocabulary_size is an integer and at least 5, got 1. 4 ids are"),
        ({"vocabulary_size": 0}, "at least 5, got 0"),
        ({"vocabulary_size": 2.0}, "at least 5, got 2.0"),
        ({"vocabulary_size": "10000"}, "at least 5, got '10000'"),
        ({"vocabulary_size": 5, "mask": True}, "at least 6, got 5. 5 ids are special.*mask"),
        ({"character_coverage": 2}, "character_coverage is at most 1, got 2"),
        ({"character_coverage": "all"}, "character_coverage is a number and at least 0.98"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(**arguments)
    for pairs, message in (
        (None, "pairs must be an iterable of pairs or of lines, got None"),
        ([None], "item 0 is None"),
        (["a", 5], "item 1 is 5"),
        ([("a", "b"), ("a", None)], "Item 1 of pairs holds None, which is no string"),
        ([b"ab"], "Item 0 of pairs holds b'ab', which is no string. Decode it first"),
        (["a\ud800"], "Item 0 of pairs holds 'a.*', with an unpaired surrogate at character 1"),
    ):
        with pytest.raises(ValueError, match=message):
            text.train_tokenizer(pairs)
    for wrong, message in (
        (None, "list of strings, got None"),
        ([None], "got at index 0 None"),
        (["a", "b\udc80"], "got at index 1 'b.*', with an unpaired surrogate at character 1"),
        ("\ud800", "with an unpaired surrogate at character 0"),
    ):
        with pytest.raises(ValueError, match=message):
            BPE.encode(wrong)
        with pytest.raises(ValueError, match="list of strings"):
            BPE.sample(wrong, 0.1, 1)
    with pytest.raises(ValueError, match="seed is an integer and at least 0, got -1"):
        BPE.sample(["a"], 0.1, -1)
    with pytest.raises(ValueError, match="alpha is a number and at least 0, got 'some'"):
        BPE.sample(["a"], "some", 1)
    with pytest.raises(ValueError, match="A tokenizer encodes text, got None, which is no string"):
        BPE.pieces(None)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_the_size_named_by_an_error_works(kind):
    for wrong, words in ((5000, "at most "), (5, "at least ")):
        if (kind, wrong) == ("word", 5):  # a word vocabulary may omit words
            continue
        with pytest.raises(ValueError, match=words) as error:
            trained(kind, wrong)
        named = int(str(error.value).split(words)[1].split(" ")[0].rstrip(";"))
        assert trained(kind, named).vocabulary_size == named
        with pytest.raises(ValueError, match=words):
            trained(kind, named + (1 if wrong > named else -1))


def test_save_and_load(tmp_path):
    path = tmp_path / "shared.model"
    BPE.save(path)
    BPE.save(path)  # saving the same again is no conflict
    loaded = text.Tokenizer.load(str(path))
    assert loaded.encode([HARD]) == BPE.encode([HARD])
    assert loaded.vocabulary_size == BPE.vocabulary_size == 607
    with pytest.raises(ValueError, match="shared.model exists"):
        TOKENIZERS["char"].save(path)
    assert path.read_bytes() == BPE.model_proto
    assert os.listdir(tmp_path) == ["shared.model"]
    with pytest.raises(FileNotFoundError, match="no folder .* make it"):
        BPE.save(tmp_path / "absent" / "shared.model")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(range(256)), b"\0" * 50])
def test_load_names_what_is_wrong_with_a_file(tmp_path, content):
    path = tmp_path / "broken.model"
    with pytest.raises(FileNotFoundError, match="broken.model; make one with .*train_tokenizer"):
        text.Tokenizer.load(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken.model: expected .* got {len(content)} bytes"):
        text.Tokenizer.load(path)


@pytest.mark.parametrize("ids", [{}, {"pad_id": 3}, {"pad_id": 0, "unk_id": 3, "eos_id": -1}])
def test_other_special_ids_are_an_error(ids):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"]), model_writer=model, model_type="char",
        minloglevel=2, vocab_size=7, **ids,
    )  # fmt: skip
    with pytest.raises(ValueError, match="pad id 0 .* train one with kt.text.train_tokenizer"):
        text.Tokenizer(model.getvalue())


def test_unseen_pieces():
    trained_on = [np.array(BPE.encode("a man rides")), BPE.encode("한 남자가 ½")]
    seen = BPE.seen_ids(trained_on)
    assert seen.dtype == bool and seen.shape == (607,)
    assert set(np.flatnonzero(seen)) == {i for ids in trained_on for i in ids}
    assert BPE.unseen_pieces("a man 한 ½ rides", seen) == []
    assert BPE.unseen_pieces("a horse a 😀½ ⅓😀 horse", seen) == ["horse", "😀", "⅓"]
    assert BPE.unseen_pieces(unicodedata.normalize("NFD", "a 쀍"), seen) == ["쀍"]
    assert BPE.unseen_pieces("ý", seen) == ["ý"]  # shares its second byte with ½


@pytest.mark.parametrize("kind", ["char", "word"])
def test_unknown_is_always_unseen(kind):
    everything = np.ones(TOKENIZERS[kind].vocabulary_size, bool)
    assert TOKENIZERS[kind].unseen_pieces("a 😀⅓ a 😀⅓", everything) == ["😀⅓"]
    assert set(TOKENIZERS[kind].unseen_pieces("a", ~everything)) <= {"▁", "a"}


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_graph_equals_eager(kind):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_text")
    tokenizer = TOKENIZERS[kind]
    graph = tokenizer.in_graph()

    @settings(deadline=None, max_examples=50)
    @given(st.lists(ANY_TEXT | HANGUL.map(lambda s: unicodedata.normalize("NFD", s)), min_size=1))
    def encode_law(lines):
        ids = graph.encode(tf.constant(lines))
        assert ids.dtype == tf.int32 and ids.to_list() == tokenizer.encode(lines)
        assert strings(graph.decode(ids)) == tokenizer.decode(tokenizer.encode(lines))

    @settings(deadline=None, max_examples=50)
    @given(st.integers(1, 2**32 - 1))
    def decode_law(seed):  # 5 rows of 7 ids, of which every other one is special
        draw = np.random.default_rng(seed)
        ids = draw.integers(0, tokenizer.vocabulary_size, (5, 7))
        ids = np.where(draw.random((5, 7)) < 0.5, draw.integers(0, 4, (5, 7)), ids)
        assert strings(graph.decode(tf.constant(ids, "int32"))) == tokenizer.decode(ids)

    def strings(tensor):
        return [line.decode() for line in tensor.numpy()]

    encode_law()
    decode_law()
    noisy = [i for id in tokenizer.encode(HARD) for i in (tokenizer.pad_id, id, tokenizer.start_id)]
    assert strings(graph.decode(tf.constant([noisy]))) == [tokenizer.decode(noisy)]
    lines = [line for pair in PAIRS for line in pair] + [HARD, ""]
    dataset = tf.data.Dataset.from_tensor_slices(lines).batch(5).map(graph.encode)
    assert [ids for batch in dataset for ids in batch.to_list()] == tokenizer.encode(lines)
    texts = dataset.map(lambda ids: graph.decode(ids.to_tensor(tokenizer.pad_id))).unbatch()
    assert [line.decode() for line in texts.as_numpy_iterator()] == tokenizer.decode(
        tokenizer.encode(lines)
    )


# Fails if: the saved object does not track the tokenizer's inner resource.
def test_saved_model_reloads_in_a_fresh_process(tmp_path):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_text")

    class RoundTrip(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = BPE.in_graph()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, lines):
            ids = self.tokenizer.encode(lines)
            return ids.to_tensor(), self.tokenizer.decode(ids)

    tf.saved_model.save(RoundTrip(), str(tmp_path))
    program = (
        "import sys, tensorflow as tf, tensorflow_text\n"
        "ids, texts = tf.saved_model.load(sys.argv[1])(tf.constant([sys.argv[2]]))\n"
        "print(ids.numpy()[0].tolist(), texts.numpy()[0].decode(), sep='\\n')"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), HARD],
        capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert out.stdout == f"{BPE.encode(HARD)}\n{kept(HARD)}\n"


# Fails if: both vocabularies get the same name in the SavedModel.
def test_two_vocabularies_in_one_saved_model_stay_two(tmp_path):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_text")

    class Two(tf.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = BPE.in_graph(), TOKENIZERS["word"].in_graph()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, lines):
            return self.first.encode(lines), self.second.encode(lines)

    tf.saved_model.save(Two(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    lines = list(PAIRS[0])
    for ids, tokenizer in zip(loaded(tf.constant(lines)), (BPE, TOKENIZERS["word"]), strict=True):
        assert ids.to_list() == tokenizer.encode(lines)


def test_real_text_is_lossless():
    folder = os.environ.get("KERAS_TRANSFORMER_DATA")
    if not folder:
        pytest.skip("KERAS_TRANSFORMER_DATA names no folder of corpora")
    rows = Path(folder, "tatoeba_ko_en", "kor.txt").read_text("utf-8").splitlines()
    pairs = [tuple(row.split("\t")[:2]) for row in rows]
    tokenizer = text.train_tokenizer(pairs, 4001)
    lines = [line for pair in pairs for line in pair]
    assert tokenizer.decode(tokenizer.encode(lines)) == [kept(line) for line in lines]
