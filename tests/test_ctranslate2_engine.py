"""Laws of translating through CTranslate2: the interface and the results of `Translator`."""

import numpy as np
import pytest
from test_export import (  # fixtures, which pytest finds by their names here
    TEXTS,
    source_tokenizer,
    target_tokenizer,
    translator,
)

import keras_transformer as kt
from keras_transformer import interop
from keras_transformer.decoding import Sampling
from keras_transformer.interop import ctranslate2_engine
from keras_transformer.text.workers import cores

ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
pytestmark = pytest.mark.tensorflow_only

FIXTURES = source_tokenizer, target_tokenizer, translator


@pytest.fixture(scope="module")
def run(translator, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    tokenizers = translator.tokenizer, translator.target_tokenizer
    kt.runs.write_run(path, {"seed": 1}, translator.models[0], tokenizers)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_TRANSFORMER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def engine(run, cache):
    return kt.load_translator(run, engine="ctranslate2")


# Fails if: scores are not by our length penalty, results lose their place, or a blank text fails.
@pytest.mark.parametrize("penalty", [0, 0.6, "average"])
def test_it_finds_what_our_search_finds(translator, engine, penalty):
    texts = [*TEXTS, "", "  "]
    for beam_size in (1, 3):
        ours, theirs = (each.n_best(texts, 1, beam_size, penalty) for each in (translator, engine))
        same = [a[0].ids == b[0].ids for a, b in zip(ours, theirs, strict=True)]
        # A beam ends earlier there, so it may find less; the weights are random, which is hard.
        assert sum(same) >= (len(texts) if beam_size == 1 else 4)
        for (a,), (b,) in zip(ours, theirs, strict=True):
            assert b.score <= a.score + 1e-3
            if a.ids == b.ids:
                assert b.text == a.text
                np.testing.assert_allclose(b.score, a.score, rtol=1e-3, atol=1e-5)
    assert engine.weights == "average"


# Fails if: what the engine lacks is an error of the server, or fails only after waiting.
def test_the_server_answers_with_it(run, engine, translator):
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    from test_serve import answer, ask, served

    with served(engine, warm_up=True) as (port, _):
        found = answer(port, "/translate", {"texts": TEXTS, "min_length": 2, "token_scores": True})
        expected = engine.translate(TEXTS, 2, min_length=2)
        assert [each["translation"] for each in found["translations"]] == expected
        for path, more, status, says in (
            ("/translate", {"sampling": {}}, 400, b"has no sampling"),
            ("/translate", {"terminology": ["a"]}, 400, b"has no terminology"),
            ("/translate", {"alignments": True}, 501, b"runs the engine ctranslate2"),
            ("/explain", {}, 501, b"runs the engine ctranslate2"),
        ):
            found = ask(port, path, {"text": TEXTS[0], **more})
            assert found[0] == status and says in found[2]
    auto = kt.load_translator(run, engine="auto")
    pair = [(TEXTS[0], engine.n_best(TEXTS[:1], 1, 2)[0][0].ids)]
    links = [list(link) for link in translator.align(pair)[0]]
    with served(auto) as (port, _):
        found = answer(port, "/translate", {"text": TEXTS[0], "alignments": True})
        assert found["alignments"] == links


def test_pairs_have_our_scores(translator, engine):
    pairs = [(text, "stu vw"[: 1 + i]) for i, text in enumerate(TEXTS)]
    for ours, theirs in zip(*(t.score(pairs) for t in (translator, engine)), strict=True):
        assert theirs[1] == ours[1]
        np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-3)


# Fails if: a sentence wakes several threads, which takes longer than one, or a core waits.
def test_few_sentences_are_shared_out_among_the_cores(run, cache):
    engine = kt.load_translator(run, engine="ctranslate2")
    assert engine._engine.num_translators == cores()
    sizes = []

    class Watched:
        num_translators = 3

        def translate_batch(self, *given, max_batch_size, **options):
            sizes.append(max_batch_size)
            return real.translate_batch(*given, max_batch_size=max_batch_size, **options)

    real, engine._engine = engine._engine, Watched()
    for count, batch_size, size in ((1, 64, 1), (3, 64, 1), (7, 64, 3), (7, 2, 2)):
        texts = (TEXTS * 7)[:count]
        found = engine.translate(texts, batch_size=batch_size)
        assert sizes.pop() == size
        assert found == [engine.translate([text])[0] for text in texts]


# Fails if: one core translates a sentence while the others wait; a model is loaded twice that is
# small, whose threads were chosen, or that has one core.
def test_a_sentence_of_a_large_model_has_all_cores(run, cache, monkeypatch):
    small = kt.load_translator(run, engine="ctranslate2")
    assert small._alone is None
    monkeypatch.setattr(ctranslate2_engine, "TOGETHER", 1)
    monkeypatch.setattr(ctranslate2_engine, "cores", lambda: 3)
    loaded, folder = [], next(cache.rglob("model.bin")).parent

    class Watched(ctranslate2.Translator):
        def __init__(self, *given, **options):
            loaded.append({name: options.get(name) for name in ("inter_threads", "intra_threads")})
            super().__init__(*given, **options)

    monkeypatch.setattr(ctranslate2, "Translator", Watched)
    large = kt.load_translator(run, engine="ctranslate2")
    assert large.translate(TEXTS) == small.translate(TEXTS)
    assert loaded == [{"inter_threads": 3, "intra_threads": 1}]
    for _ in range(2):
        assert large.translate(TEXTS[:1]) == small.translate(TEXTS[:1])
    assert loaded[1:] == [{"inter_threads": None, "intra_threads": 3}]
    chosen = ctranslate2_engine.CTranslate2Translator
    assert chosen(folder, small.tokenizer, intra_threads=2)._alone is None
    monkeypatch.setattr(ctranslate2_engine, "cores", lambda: 1)
    assert chosen(folder, small.tokenizer)._alone is None


# Fails if: an option is not passed on. Greedily both engines choose the same.
@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "ts"},
        {"prefix": [["s", None, "u"][i % 3] for i in range(len(TEXTS))]},
        {"min_length": 9, "max_length": 14},
        {"no_repeat_ngram": 2, "min_length": 5},
        {"suppress": ["s", "tt"], "min_length": 3},
    ],
)
def test_options_are_those_of_our_search(translator, engine, options):
    ours, theirs = (
        [best[0].ids for best in each.n_best(TEXTS, 1, 1, 0, **options)]
        for each in (translator, engine)
    )
    plain = [best[0].ids for best in translator.n_best(TEXTS, 1, 1, 0)]
    assert ours == theirs != plain


# Fails if: the sentences of a document lose their place.
def test_documents_are_translated_sentence_by_sentence(engine):
    pytest.importorskip("sentencex", reason="sentencex is not installed")
    first, second = engine.translate(["Abc de.", "Fedcba."], beam_size=1, min_length=2)
    options = {"split": "en", "beam_size": 1, "min_length": 2}
    found = kt.decoding.translate_structured(engine, ["Abc de.  Fedcba.", ""], **options)
    assert first and second and found == [(f"{first}  {second}", None), ("", None)]
    with pytest.raises(ValueError, match="CTranslate2 gives no attention to align by"):
        kt.decoding.translate_structured(engine, ["abc"], tags=True)


def test_what_it_lacks_is_refused(run, engine):
    for options, says in (
        ({"sampling": Sampling()}, "sampling as here"),
        ({"repetition_penalty": 1.2}, "repetition_penalty as here"),
        ({"adjust": [lambda log_probs, *rest: log_probs] * 2}, "functions of your own"),
        ({"terminology": [["s"]], "repetition_penalty": 2.0}, "terminology and no repetition_.*"),
    ):
        with pytest.raises(ValueError, match=f"The engine ctranslate2 has no {says}: leave"):
            engine.translate(["abc"], **options)
    long = " ".join(["abc"] * 2048)
    with pytest.raises(ValueError, match="has no positions from 2,048 on, which a text"):
        engine.translate([long])
    with pytest.raises(ValueError, match="has no positions from 2,048 on: shorten"):
        engine.token_log_probabilities([(long, "s")])
    for given, says in (
        (([run, run],), "has no ensembles"),
        ((run, ["last", "average"]), "has no ensembles"),
    ):
        with pytest.raises(ValueError, match=says):
            kt.load_translator(*given, engine="ctranslate2")
    with pytest.raises(ValueError, match="engine is one of keras, ctranslate2, auto; got 'fast'"):
        kt.load_translator(run, engine="fast")
    with pytest.raises(ValueError, match="has an effect only with engine='ctranslate2'"):
        kt.load_translator(run, quantization="int8")


# Fails if: a run is converted at each start, or other weights are not.
def test_a_run_is_converted_once(run, engine, cache, translator, monkeypatch, tmp_path):
    converted = []
    plain = interop.to_ctranslate2
    monkeypatch.setattr(
        interop, "to_ctranslate2", lambda *given: converted.append(given[1:]) or plain(*given)
    )
    before = sorted(path.name for path in run.rglob("*"))
    kt.load_translator(run, engine="ctranslate2").translate(["abc"])
    assert not converted
    kt.load_translator(run, engine="ctranslate2", quantization="int8").translate(["abc"])
    assert [quantization for _, quantization in converted] == ["int8"]
    tokenizers = translator.tokenizer, translator.target_tokenizer
    model = translator.models[0]
    weights = model.get_weights()
    try:
        model.set_weights([0.5 * weight for weight in weights])
        kt.runs.write_run(tmp_path / "other", {"seed": 1}, model, tokenizers)
    finally:
        model.set_weights(weights)
    kt.load_translator(tmp_path / "other", engine="ctranslate2")
    assert len(converted) == 2 and len(list((cache / "ctranslate2").iterdir())) == 3
    assert before == sorted(path.name for path in run.rglob("*"))  # nothing is written there


# Fails if: it never takes CTranslate2, refuses what only our engine can do, or has no models.
def test_auto_does_everything(run, cache, translator, monkeypatch, capsys):
    auto = kt.load_translator(run, engine="auto")
    plain = auto.n_best(TEXTS, 2)
    assert plain == kt.load_translator(run, engine="ctranslate2").n_best(TEXTS, 2)
    assert auto.compiled_shapes == 0
    draws = {"sampling": Sampling(seed=3)}
    assert auto.translate(TEXTS, **draws) == translator.translate(TEXTS, **draws)
    assert auto.compiled_shapes > 0 and auto.weights == "average"
    long = [" ".join(["abc"] * 512)]  # 2,048 tokens
    assert auto.translate(long, 1, max_length=3) == translator.translate(long, 1, max_length=3)
    pairs = [(text, "stu vw") for text in TEXTS]
    assert auto.align(pairs) == translator.align(pairs)
    ensemble = kt.load_translator([run, run], engine="auto")
    assert ensemble.translate(TEXTS, 1) == translator.translate(TEXTS, 1)
    assert len(ensemble.models) == 2  # both are searched
    monkeypatch.setattr(interop, "to_ctranslate2", None)
    monkeypatch.setattr("keras_transformer.runs.engines.installed", lambda: False)
    assert type(kt.load_translator(run, engine="auto")) is kt.Translator


# Fails if: a model that CTranslate2 lacks is an error, or a wrong path is not.
def test_auto_takes_our_engine_for_a_model_that_ctranslate2_lacks(
    run, cache, translator, monkeypatch, capsys
):
    def refuse(*given):
        raise ValueError("CTranslate2 has no activation 'elu'.")

    monkeypatch.setattr(interop, "to_ctranslate2", refuse)
    monkeypatch.setenv("KERAS_TRANSFORMER_CACHE", str(cache / "empty"))
    found = kt.load_translator(run, engine="auto")
    assert (
        "translating with Keras, because: CTranslate2 has no activation" in capsys.readouterr().err
    )
    assert found.translate(TEXTS, 1) == translator.translate(TEXTS, 1)
    with pytest.raises(FileNotFoundError):
        kt.load_translator(run / "nowhere", engine="auto")
