"""Laws of text that is never whole in memory: reading, encoding by all cores, starting again."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from backports import zstd

import keras_transformer as kt
from keras_transformer import data
from keras_transformer.data import corpus as corpus_module
from keras_transformer.data import encoded_pairs, encoding, id_cache
from keras_transformer.data.corpus import evenly
from keras_transformer.data.digest import TextDigest
from keras_transformer.data.survey import Surveyor
from keras_transformer.files import map_npz, read_npz
from keras_transformer.runs import TrainSettings, reading
from keras_transformer.text import workers

pytestmark = pytest.mark.tensorflow_only  # needs no backend

PAIRS = [(f"{a} {b}", f"{b} {b} {a}") for a in ("하나", "둘", "셋") for b in "uvwxyz"]


@pytest.fixture(scope="module")
def tokenizer():
    return kt.text.train_tokenizer(PAIRS, 280)


def tsv(pairs):
    return "".join(f"{source}\t{target}\n" for source, target in pairs)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def same(a, b):
    return all(np.array_equal(value, vars(b)[name]) for name, value in vars(a).items())


# Fails if: a packed file is read as it is, a pattern is not sorted, or a weight is ignored.
def test_files_patterns_packed_files_and_weights_make_one_corpus(tmp_path):
    write(tmp_path / "b.tsv", tsv(PAIRS[:3]))
    write(tmp_path / "a.tsv.gz", gzip.compress(tsv(PAIRS[3:5]).encode()))
    write(tmp_path / "c.tsv.zst", zstd.compress(tsv(PAIRS[5:]).encode()))
    found = data.open_corpus([tmp_path / "b.tsv", f"{tmp_path}/*.tsv.*:2"])
    assert list(found) == list(found)  # read anew
    assert list(found) == PAIRS[:3] + PAIRS[3:5] * 2 + PAIRS[5:] * 2
    assert list(found.once()) == PAIRS
    assert list(data.open_corpus(PAIRS[:2]) * 2 + data.open_corpus(PAIRS[7:9])) == (
        PAIRS[:2] * 2 + PAIRS[7:9]
    )
    write(tmp_path / "d:2", tsv(PAIRS[:1]))
    assert list(data.open_corpus(tmp_path / "d:2")) == PAIRS[:1]  # the name of a file comes first


def test_aligned_files_are_paired_in_their_order(tmp_path):
    for name in range(6):  # a folder lists them in any order
        pairs = PAIRS[3 * name : 3 * name + 3]
        for side, lines in zip(("ko", "en"), zip(*pairs, strict=True), strict=True):
            write(tmp_path / f"{name}.{side}", "".join(f"{line}\n" for line in lines))
    assert list(data.open_corpus(f"{tmp_path}/*.ko", f"{tmp_path}/*.en")) == PAIRS
    weighted = data.open_corpus([f"{tmp_path}/0.ko:4"], [f"{tmp_path}/0.en"])
    assert list(weighted) == PAIRS[:3] * 4
    with pytest.raises(ValueError, match=r"same number of files, but there are 6 and 1: .*1\.ko"):
        data.open_corpus(f"{tmp_path}/*.ko", f"{tmp_path}/1.en")


# Fails if: a column is taken from the wrong field, bytes stay bytes, or one pass uses a source up.
def test_lists_and_datasets_are_corpora():
    nested = [{"id": 1, "translation": {"ko": source, "en": target}} for source, target in PAIRS]
    flat = [{"source.text": source, "target": target} for source, target in PAIRS]
    sides = map(list, zip(*PAIRS, strict=True))
    columns = {"source_column": "translation.ko", "target_column": "translation.en"}
    for corpus in (
        data.open_corpus(PAIRS),
        data.open_corpus([(0, target, source) for source, target in PAIRS], source_column=2),
        data.open_corpus(nested, **columns),
        data.open_corpus(flat, source_column="source.text", target_column="target"),
        data.open_corpus(tf.data.Dataset.from_tensor_slices(tuple(sides))),
    ):
        assert list(corpus) == PAIRS == list(corpus)
        assert corpus.identity() is None
    with pytest.raises(ValueError, match=r"Item 0 of the list has no texts at .*translation\.de"):
        list(data.open_corpus(nested, source_column="translation.de", target_column="id"))
    with pytest.raises(ValueError, match="this generator can be read only once"):
        data.open_corpus(pair for pair in PAIRS)
    with pytest.raises(ValueError, match=r"expected a whole number from 1, got 0\.5.*double"):
        data.open_corpus(PAIRS) * 0.5


def test_what_cannot_be_opened_is_said_at_once(tmp_path):
    path = write(tmp_path / "a.tsv", tsv(PAIRS))
    for names, error, says in (
        ("nothing-*.tsv", FileNotFoundError, r"no file fits the pattern nothing-\*\.tsv"),
        (f"{path}:0", ValueError, "a weight is a whole number from 1"),
        (tmp_path, ValueError, "is a directory"),
        ([path, tmp_path / "none"], FileNotFoundError, "no such file: .*none"),
    ):
        with pytest.raises(error, match=says):
            data.open_corpus(names)
    with pytest.raises(ValueError, match="columns of a TSV file are numbers"):
        data.open_corpus(path, source_column="a", target_column="b")
    cut = write(tmp_path / "cut.zst", zstd.compress(os.urandom(9999).hex().encode())[:-99])
    with pytest.raises(ValueError, match=r"cut\.zst ends with \.zst but is not a whole file"):
        list(data.read_lines(cut))


# Fails if: a pipe is opened twice.
def test_a_pipe_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write, args=(tmp_path / "pipe", tsv(PAIRS)))
    writer.start()
    corpus = data.open_corpus(tmp_path / "pipe")
    writer.join()
    assert list(corpus) == PAIRS == list(corpus) and corpus.identity() is None


def test_a_sample_is_even_and_always_the_same():
    assert list(evenly(range(10), 10, 99)) == list(range(10))
    for total, count in ((10, 1), (10, 3), (1000, 999), (997, 100)):
        chosen = list(evenly(range(total), total, count))
        assert len(chosen) == count
        gaps = np.diff([-1, *chosen])
        assert gaps.max() - gaps.min() <= 1
    corpus = data.open_corpus(PAIRS)
    assert len(list(corpus.sample(5))) == 5 and list(corpus.sample(5)) == list(corpus.sample(5))


# Fails if: the digest of a stream is not the SHA-256 of the JSON of the lists, as in older runs.
def test_the_digest_of_a_stream_is_that_of_its_lists(monkeypatch):
    texts = PAIRS, [("a\n", '"\ud800')], [], ["line", "other"], "text"
    whole = json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert data.text_sha256(*texts) == hashlib.sha256(whole).hexdigest()
    digest = TextDigest()
    digest.begin()
    for pairs in (PAIRS[:1], [], PAIRS[1:]):
        digest.add(pairs)
    digest.end()
    digest.text([("a", "b")])
    assert digest.hexdigest() == data.text_sha256(iter(PAIRS), [("a", "b")])
    assert data.text_sha256() == hashlib.sha256(b"[]").hexdigest()


def test_the_survey_of_chunks_is_that_of_the_whole():
    surveyor = Surveyor()
    for pairs in (PAIRS, PAIRS[:5], [("neu", PAIRS[0][1])]):
        surveyor.add(pairs)
    found = surveyor.survey([PAIRS[2], (PAIRS[3][0], "x"), ("y", "z")])
    assert (found.pairs, found.duplicate_pairs) == (len(PAIRS) + 6, 5)
    assert (found.distinct_sources, found.distinct_targets) == (len(PAIRS) + 1, len(PAIRS))
    assert (found.validation_pairs_seen, found.validation_sources_seen) == (1, 2)


# Fails if: results come in another order than texts, or a side has the vocabulary of the other.
def test_processes_encode_like_the_vocabulary(tokenizer):
    other = kt.text.train_tokenizer([target for _, target in PAIRS], 275)
    requests = [([s for s, _ in PAIRS[i:]], [t for _, t in PAIRS[i:]]) for i in range(len(PAIRS))]
    with workers.encoders([tokenizer, other], 2) as processes:
        numbered = [(sides, number) for number, sides in enumerate(requests)]
        found = list(workers.in_order(processes, numbered))
        assert [note for note, _ in found] == list(range(len(PAIRS)))
        for (_, encoded), sides in zip(found, requests, strict=True):
            for (ids, lengths), vocabulary, texts in zip(
                encoded, (tokenizer, other), sides, strict=True
            ):
                assert np.split(ids, np.cumsum(lengths)[:-1])[0].tolist() == vocabulary.encode(
                    texts[0]
                )
                assert ids.tolist() == sum(vocabulary.encode(texts), [])
                assert lengths.tolist() == list(map(len, vocabulary.encode(texts)))
        processes[0]._process.kill()
        with pytest.raises(RuntimeError, match="has ended, perhaps for lack of memory"):
            list(workers.in_order(processes[:1], numbered))


@pytest.fixture
def large(monkeypatch, tmp_path):
    """A corpus that counts as large, of 40 requests of 10 pairs, kept after every 50 pairs."""
    monkeypatch.setattr(corpus_module, "LARGE", 100)
    monkeypatch.setattr(corpus_module, "_LARGE_BYTES", 100)
    monkeypatch.setattr(encoding, "_PAIRS_AT_A_TIME", 10)
    monkeypatch.setattr(id_cache, "PAIRS_AT_A_TIME", 50)
    monkeypatch.setattr(encoding, "cores", lambda: 1)
    random = np.random.default_rng(1)
    pairs = [PAIRS[i] for i in random.integers(0, len(PAIRS), 397)]
    pairs[5] = pairs[333] = ("", "x")
    pairs[6] = ("u " * 99, "x")
    return pairs, write(tmp_path / "large.tsv", tsv(pairs))


# Fails if: ids of processes or of parts differ, dropped pairs are not counted, or parts are left.
@pytest.mark.parametrize("cores", [1, 2])
def test_a_large_corpus_has_the_ids_of_a_list(large, tokenizer, tmp_path, monkeypatch, cores):
    pairs, path = large
    expected = data.encode_pairs(iter(pairs), tokenizer, max_length=50)
    assert (expected.dropped_empty, expected.dropped_long) == (2, 1)
    monkeypatch.setattr(encoding, "cores", lambda: cores)
    started = []
    monkeypatch.setattr(
        encoding, "encoders", lambda *given: started.append(given) or workers.encoders(*given)
    )
    cache = tmp_path / "ids.npz"
    found = data.encode_pairs(data.open_corpus(path), tokenizer, max_length=50, cache=cache)
    assert same(expected, found) and same(found, data.read_encoded(cache))
    assert found.source_ids.dtype == np.uint16 and bool(started) == (cores == 2)
    assert not id_cache.parts_of(cache).exists()
    plans = [data.BatchPlan(each, 64, seed=3) for each in (expected, found)]
    for update in (0, 50, 500):
        one, other = (plan.batches(update)[0] for plan in plans)
        np.testing.assert_array_equal(one[0]["source_ids"], other[0]["source_ids"])
        np.testing.assert_array_equal(one[1], other[1])


# Fails if: a stopped encoding begins again, a damaged part is used, or parts of other text are.
@pytest.mark.parametrize("damage", [None, "source_ids", "target_lengths", "state.json", "text"])
def test_a_stopped_encoding_continues_at_its_last_whole_part(
    large, tokenizer, tmp_path, monkeypatch, damage
):
    pairs, path = large
    expected = data.encode_pairs(iter(pairs), tokenizer, max_length=50)
    cache, counted = tmp_path / "ids.npz", []

    def stopping(*arguments):
        counted.append(arguments)
        if len(counted) == 28:
            raise KeyboardInterrupt
        return workers.flat_ids(*arguments)

    monkeypatch.setattr(encoding, "flat_ids", stopping)
    corpus = data.open_corpus(path)
    with pytest.raises(KeyboardInterrupt):
        data.encode_pairs(corpus, tokenizer, max_length=50, cache=cache)
    assert len(counted) == 28 and not cache.exists()
    if damage == "text":
        write(path, tsv(pairs[::-1]))
        expected = data.encode_pairs(pairs[::-1], tokenizer, max_length=50)
    elif damage:
        part = id_cache.parts_of(cache) / damage
        content = bytearray(part.read_bytes())
        content[len(content) // 3] ^= 1
        part.write_bytes(content)
    counted.clear()
    monkeypatch.setattr(encoding, "flat_ids", lambda *a: counted.append(a) or workers.flat_ids(*a))
    found = data.encode_pairs(data.open_corpus(path), tokenizer, max_length=50, cache=cache)
    assert same(expected, found)
    # 13 of 40 requests were encoded; 10 of them, in two parts of 50 pairs, were kept.
    assert len(counted) == 2 * (40 if damage else 30)
    assert not id_cache.parts_of(cache).exists()


# Fails if: two processes that encode the same text write into the same files.
def test_a_second_process_does_not_write_into_the_parts(large, tokenizer, tmp_path, capsys):
    pairs, path = large
    cache = tmp_path / "ids.npz"
    first = id_cache.OnDisk(cache, "key", np.dtype(np.uint16))
    corpus = data.open_corpus(path)
    found = data.encode_pairs(corpus, tokenizer, max_length=50, cache=cache)
    assert "collected in memory" in capsys.readouterr().err
    assert same(found, data.encode_pairs(iter(pairs), tokenizer, max_length=50))
    assert id_cache.parts_of(cache).exists()  # which the first still writes
    first.close()
    data.encode_pairs(corpus, tokenizer, max_length=50, cache=cache)
    assert not id_cache.parts_of(cache).exists()


def test_arrays_stay_in_the_file_and_are_compared_with_their_checksums(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_transformer.files._MAPPED", 300)
    arrays = {
        "long": np.arange(1000, dtype=np.uint16),
        "table": np.asfortranarray(np.random.default_rng(1).normal(size=(37, 41))),
        "short": np.arange(7),
        "nothing": np.zeros(0, np.int64),
        "word": np.array("키"),
    }
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    found = map_npz(path)
    for name, array in read_npz(path).items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert found["long"].base is not None and not found["long"].flags.writeable
    content = path.read_bytes()
    place = content.index(arrays["long"].tobytes()) + 77
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        map_npz(path)


def test_counts_of_a_long_array_are_those_of_its_parts(monkeypatch):
    monkeypatch.setattr(encoded_pairs, "_IDS_AT_A_TIME", 13)
    ids = np.random.default_rng(1).integers(0, 30, 100).astype(np.uint16)
    np.testing.assert_array_equal(encoded_pairs.counts_of(ids, 40), np.bincount(ids, minlength=40))
    np.testing.assert_array_equal(encoded_pairs.counts_of(ids), np.bincount(ids))


def settings(folder, **more):
    return TrainSettings(run_dir=str(folder / "run"), **more)


# Fails if: the text is read again although no file has changed, or is not read after a change.
def test_an_unchanged_text_is_not_read_again(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "a.tsv", tsv(PAIRS))
    options = settings(tmp_path, train_tsv=str(path), hold_out=4)
    folder = tmp_path / "run" / "ids"
    folder.mkdir(parents=True)
    first = reading.read_text(options, folder)
    first.keep(folder)
    assert len(first.valid) == 4 and len(list(first.train)) == len(PAIRS) - 4

    def read_again():
        read = []
        monkeypatch.setattr(
            reading, "_read", lambda *given, plain=plain: read.append(1) or plain(*given)
        )
        found = reading.read_text(options, folder)
        monkeypatch.setattr(reading, "_read", plain)
        for name in ("survey", "valid", "sha256", "files"):
            assert (getattr(found, name) == getattr(first, name)) or read
        assert vars(found.seen) == vars(first.seen) or read
        assert list(found.train) == list(first.train) or read
        return bool(read)

    plain = reading._read
    assert not read_again()
    options = options.changed(seed=5)
    assert read_again()
    options = options.changed(seed=1)
    content = (folder / "text.json").read_text(encoding="utf-8")
    (folder / "text.json").write_text(content.replace('"pairs": 14', '"pairs": 15'))
    assert content.count('"pairs": 14') == 1 and read_again()
    assert "text.json is damaged. The text is read again." in capsys.readouterr().err
    first.keep(folder)
    os.utime(path, (1, 1))
    assert read_again()
    assert reading.read_text(options, folder).sha256 == first.sha256


# Fails if: held-out pairs depend on weights, or a weighted corpus is validated on a source it has.
def test_weights_do_not_change_what_is_held_out(tmp_path):
    path = write(tmp_path / "a.tsv", tsv(PAIRS))
    plain = reading.read_text(settings(tmp_path, train_tsv=[str(path)], hold_out=4))
    double = reading.read_text(settings(tmp_path, train_tsv=[f"{path}:2"], hold_out=4))
    assert plain.valid == double.valid
    assert sorted(double.train) == sorted(list(plain.train) * 2)


# Fails if: the vocabulary of a small text depends on the sample, or that of a large one does not.
def test_a_vocabulary_is_trained_on_a_sample(tmp_path):
    from keras_transformer.runs import prepare

    path = write(tmp_path / "a.tsv", tsv(PAIRS * 9))

    def vocabulary(**more):
        options = settings(
            tmp_path,
            train_tsv=str(path),
            hold_out=1,
            vocabulary_size=272,
            vocabulary_type="bpe",
            normalization="identity",
            **more,
        )
        return prepare.tokenizers(options, reading.read_text(options), None, True)[0].model_proto

    assert vocabulary() == vocabulary(vocabulary_sample=10**6)
    assert vocabulary() != vocabulary(vocabulary_sample=3)


# Fails if: a process whose parent was killed prints a traceback, or stays.
def test_processes_end_quietly_with_their_parent(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.model")
    code = f"""
import os, signal
from keras_transformer.text import Tokenizer, workers
tokenizer = Tokenizer.load({str(tmp_path / "a.model")!r})
process = workers.Encoder([tokenizer, tokenizer])
process.put([["하나"] * 100_000] * 2)
os.kill(os.getpid(), signal.SIGKILL)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    # Both pipes are at their end only when the second process has ended too.
    assert (found.returncode, found.stderr) == (-signal.SIGKILL, b"")
