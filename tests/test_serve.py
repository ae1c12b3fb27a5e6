"""Tests that the server answers everyone, over real connections, and keeps its limits."""

import base64
import contextlib
import hashlib
import http.client
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import browser
import keras
import numpy as np
import pytest
from uncompiled import search_in_one_shape, search_uncompiled

import keras_transformer as kt
from keras_transformer import cli, visualization
from keras_transformer.decoding import Sampling, alignment
from keras_transformer.models import Transformer
from keras_transformer.serving import Limits
from keras_transformer.serving.batching import Batcher, QueueFull
from keras_transformer.text import train_tokenizer
from keras_transformer.text.seen import Seen

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")

# The server is the same on every backend; the test with 64 clients runs on all of them.
ONE_BACKEND = pytest.mark.tensorflow_only
WORDS = "나는 집에 간다 커피를 좋아해 너는".split()
PAIRS = [(" ".join(WORDS), "I go home and you love coffee"), ("나는 집에", "I home")]
HOSTILE = "나는 <script>alert(1)</script> <img src=x onerror=alert(2)>"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*PAIRS, (HOSTILE, "")], 350, character_coverage=1.0)


@pytest.fixture(scope="module")
def model(tokenizer):
    keras.utils.set_random_seed(5)
    model = Transformer(tokenizer.vocabulary_size, num_layers=2, d_model=14, num_heads=2, d_ff=19)
    rng = np.random.default_rng(7)
    # With larger weights than a new model's, different sentences get different translations.
    model.set_weights(
        [w if w.ndim == 1 else rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module", autouse=True)
def quick_search():
    with pytest.MonkeyPatch.context() as patch:
        search_in_one_shape(patch)
        search_uncompiled(patch)
        yield


class Held(kt.Translator):
    """A translator that waits for permission before each call, and records the calls."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.go, self.calls, self.error = threading.Event(), [], None
        self.go.set()

    def n_best(self, texts, *arguments, **options):
        self.calls.append(list(texts))
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return super().n_best(texts, *arguments, **options)


@pytest.fixture(scope="module")
def translator(model, tokenizer):
    seen = Seen.of([source for source, _ in PAIRS], tokenizer)
    seen.longest = 99
    return Held(model, tokenizer, seen=seen)


@contextlib.contextmanager
def served(translator, warm_up=False, **limits):
    """Serves a translator from a thread; yields the port and what ends the server."""
    application = kt.serving.app(translator, Limits(**limits), beam_size=2, warm_up=warm_up)
    server = uvicorn.Server(
        uvicorn.Config(application, log_config=None, log_level="critical", lifespan="on")
    )
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()

        def end():
            server.should_exit = True

        try:
            yield listening.getsockname()[1], end
        finally:
            end()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(translator):
    limits = {"body_bytes": 5000, "sentences": 5, "tokens": 60, "explained_tokens": 20}
    with served(translator, searches=4, **limits) as (port, _):
        yield port


def ask(port, path, body=None, headers=JSON, method=None):
    """Sends one request on a connection of its own; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def answer(port, path, body):
    status, _, text = ask(port, path, body)
    assert status == 200, text
    return json.loads(text)


def metrics(port):
    lines = ask(port, "/metrics")[2].decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }


# --- answers


# Fails if: results of a batch are given out in reverse, or to the next request; searches that
# differ share a batch; requests come to the translator one by one.
def test_64_clients_at_once_get_their_own_answers(translator):
    sentences = [" ".join(words) for words in itertools.permutations(WORDS, 3)][:96]
    wanted = []
    for client in range(64):
        texts = sentences[client : client + 1 + client % 3]
        search = {"beam_size": 1} if client % 4 == 0 else {}
        wanted.append((texts, search))
    expected = {}
    for beam in (1, 2):
        for text, [best] in zip(sentences, translator.n_best(sentences, 1, beam), strict=True):
            expected[beam, text] = best.text, pytest.approx(best.score, abs=1e-4)
    assert len({round(score.expected, 3) for _, score in expected.values()}) > 90
    together = threading.Barrier(64)

    def client(texts, search):
        together.wait()
        if len(texts) > 1:
            found = answer(port, "/translate", {"texts": texts, **search})["translations"]
        else:
            found = [answer(port, "/translate", {"text": texts[0], **search})]
        return [(each["translation"], each["score"]) for each in found]

    translator.calls.clear()
    with served(translator) as (port, _), ThreadPoolExecutor(64) as pool:
        found = list(pool.map(client, *zip(*wanted, strict=True)))
        counted = metrics(port)
    for (texts, search), results in zip(wanted, found, strict=True):
        assert results == [expected[search.get("beam_size", 2), text] for text in texts]
    count = sum(len(texts) for texts, _ in wanted)
    assert counted['keras_transformer_requests_total{path="/translate",status="200"}'] == 64
    assert counted["keras_transformer_sentences_total"] == count
    assert counted["keras_transformer_batches_total"] == len(translator.calls) < 32
    assert counted["keras_transformer_queue_sentences"] == 0


@ONE_BACKEND
def test_an_answer_has_what_the_translator_found(translator, port):
    texts = ["나는 집에 간다", "", "너는 홍차"]
    expected = translator.n_best(texts, 3, 3, "average")
    options = {"beam_size": 3, "length_penalty": "average"}
    found = answer(port, "/translate", {"texts": texts, "n_best": 2, **options})["translations"]
    for each, hypotheses in zip(found, expected, strict=True):
        best = [(each["translation"], each["score"]) for each in each["n_best"]]
        assert best == [(h.text, pytest.approx(h.score, abs=1e-5)) for h in hypotheses[:2]]
        assert (each["translation"], each["score"]) == best[0]
    assert [len(each["warnings"]) for each in found] == [0, 0, 1]
    assert "never seen in training: 홍차" in found[2]["warnings"][0]
    [single] = translator.n_best(texts[:1], 1, 2)
    found = answer(port, "/translate", {"text": texts[0]})
    assert found["translation"] == single[0].text
    assert found.keys() == {"translation", "score", "warnings"}


# Fails if: an option is not passed on, or is that of another text; requests with other options
# share a batch, or those with equal ones do not; draws depend on the requests beside.
@ONE_BACKEND
def test_every_option_of_the_translator_may_be_asked_for(translator):
    texts, drawn = WORDS[:2], {"temperature": 2.0, "top_k": 99, "top_p": 0.99, "seed": 3}
    numbers = {"min_length": 3, "no_repeat_ngram": 1, "repetition_penalty": 1.5}
    asked = [
        {"prefix": ["I", None], "n_best": 2, **numbers},
        {"prefix": "you", "n_best": 2, **numbers},
        {"terminology": [["home"], None], "suppress": ["love"], "max_length": 4},
        {"sampling": drawn, "n_best": 3, "max_length": 2},
    ]

    def expected(n_best=1, sampling=None, **options):
        sampling = Sampling(**sampling) if sampling else None
        found = translator.n_best(texts, n_best, 2, sampling=sampling, **options)
        return [[each.text for each in hypotheses] for hypotheses in found]

    wanted, plain = [expected(**options) for options in asked], expected()
    assert all([some[:1] for some in each] != plain for each in wanted)
    with served(translator) as (port, _), ThreadPoolExecutor(16) as pool:
        translator.calls.clear()
        translator.go.clear()
        try:
            first = pool.submit(answer, port, "/translate", {"texts": [""]})
            wait_until(lambda: translator.calls)
            bodies = [{"texts": texts, **options} for options in asked]
            found = [pool.submit(answer, port, "/translate", body) for body in bodies * 2]
            wait_until(lambda: waiting(port) == 2 * len(bodies) * len(texts))
        finally:
            translator.go.set()
        assert first.result()
        for each, expected_ in zip(found, wanted * 2, strict=True):
            for one, some in zip(each.result()["translations"], expected_, strict=True):
                best = [hypothesis["translation"] for hypothesis in one.get("n_best", [one])]
                assert best == some and one["translation"] == some[0]
    # Those with a prefix are of one kind. Those with samples are alone.
    sizes = sorted(len(call) // len(texts) for call in translator.calls[1:])
    assert sizes == [1, 1, 2, 4]


# Fails if: scores or links are those of another hypothesis, or come unasked.
@ONE_BACKEND
def test_scores_and_alignments_come_with_each_hypothesis(translator, port):
    texts = ["나는 집에 간다", ""]
    hypotheses = translator.n_best(texts, 2, 2)
    beside = {"alignments": True, "token_scores": True}
    body = {"texts": texts, "n_best": 2, **beside}
    for each, some in zip(
        answer(port, "/translate", body)["translations"], hypotheses, strict=True
    ):
        for one, hypothesis in zip(each["n_best"], some, strict=True):
            pair = [(texts[0] if some[0].text else "", hypothesis.ids)]
            assert one["alignments"] == [list(link) for link in translator.align(pair)[0]]
            [scores] = translator.token_log_probabilities(pair)
            np.testing.assert_allclose(one["token_scores"], scores, atol=1e-4)
            pieces = [translator.tokenizer.id_to_piece(id) for id in hypothesis.ids]
            assert one["tokens"] == [*pieces, "</s>"]
        assert each["n_best"][0].items() <= each.items()


# Fails if: sentences go to another text, tags are lost, or a text's words are counted from another.
@ONE_BACKEND
def test_documents_and_tags_are_translated_as_in_python(translator, port):
    pytest.importorskip("sentencex", reason="needs the extra split")
    texts = ["나는 <b>집에</b> 간다. 커피를 {x} 좋아해.", " ", "너는 간다."]
    for structure in ({"split": "ko", "tags": True}, {"split": "ko"}, {"tags": True}):
        expected = kt.decoding.translate_structured(
            translator, texts, **structure, align=True, beam_size=2
        )
        found = answer(port, "/translate", {"texts": texts, **structure, "alignments": True})
        for each, (text, links) in zip(found["translations"], expected, strict=True):
            assert each["translation"] == text
            assert each["alignments"] == [list(link) for link in links]
            assert len(each["warnings"]) == len(set(each["warnings"]))
    [first, *_] = answer(port, "/translate", {"texts": texts, "split": "ko"})["translations"]
    assert first["score"] is None and "alignments" not in first
    [plain] = translator.n_best([texts[2]], 1, 2)[0]
    one = answer(port, "/translate", {"text": texts[2], "tags": True, "prefix": "I"})
    assert one["score"] != plain.score and one["translation"].startswith("I")
    assert answer(port, "/translate", {"text": " ", "split": "en"})["translation"] == ""


# Fails if: the rows of `choosing` are those of what the decoder read.
@ONE_BACKEND
def test_an_explanation_has_the_weights_of_every_head(translator, model, port):
    text = "나는 집에 간다"
    found = answer(port, "/explain", {"text": text, "target": "I go home"})
    expected = visualization.explain(translator, text, "I go home", beam_size=1)
    for kind, weights in expected.weights.items():
        np.testing.assert_allclose(found["weights"]["pieces"][kind], weights, atol=1e-4)
    assert found["source_pieces"] == expected.source_pieces
    assert found["outputs_pieces"] == expected.output_pieces
    assert found["output_words"] == ["I", "go", "home", "</s>"]
    choosing = np.array(found["choosing"])  # [L, H, output words, source words]
    assert choosing.shape == (2, 2, 4, len(found["source_words"]))
    np.testing.assert_allclose(choosing.sum(-1), 1, atol=1e-3)
    # The end is a word of one piece: it is chosen by the last step of the decoder.
    last = alignment.over_words(
        expected.weights["cross"][:, :, -1:],
        [0],
        visualization.words.words_of(expected.source_pieces)[1],
    )
    np.testing.assert_allclose(choosing[:, :, -1:], last, atol=1e-4)
    # Unless a target is given, it is what the translator finds.
    assert answer(port, "/explain", {"text": text})["target"] == translator.translate([text], 2)[0]


@ONE_BACKEND
def test_an_ensemble_translates_and_is_not_explained(model, tokenizer):
    with served(kt.Translator([model, model], tokenizer)) as (port, _):
        assert answer(port, "/translate", {"text": "나는"})["warnings"] == []
        status, _, text = ask(port, "/explain", {"text": "나는"})
    assert status == 501 and "an ensemble" in json.loads(text)["error"]


@ONE_BACKEND
def test_health_says_what_is_served(translator, port):
    found = json.loads(ask(port, "/health")[2])
    assert found == {
        "status": "ok",
        "version": kt.__version__,
        "weights": translator.weights,
        "waiting": 0,
    }


# --- refusals

LONG = " ".join(WORDS * 20)
REFUSED = [
    ("/translate", b"{", 400, "no JSON"),
    ("/translate", b"\xff\xfe\xfd", 400, "no JSON"),
    ("/translate", b"[" * 4000, 400, "no JSON"),
    ("/translate", ["a"], 400, 'a JSON object, {"text": "..."}, got ["a"]'),
    ("/translate", {}, 400, '"texts" (a list of strings), got neither'),
    ("/translate", {"text": "a", "texts": []}, 400, "got both"),
    ("/translate", {"text": 5}, 400, '"text" is 5, which is no string'),
    ("/translate", {"text": None}, 400, '"text" is None'),
    ("/translate", b'{"text": "\\ud800"}', 400, "unpaired surrogate"),
    ("/translate", b'{"\\ud800": 1}', 400, "Unknown field"),
    ("/translate", {"texts": "a"}, 400, 'a list of strings, got "a"'),
    ("/translate", {"texts": ["a", 5]}, 400, "at index 1 5, which is no string"),
    ("/translate", {"texts": []}, 400, "between 1 and 5 texts, got 0"),
    ("/translate", {"texts": ["a"] * 6}, 413, "between 1 and 5 texts, got 6"),
    ("/translate", {"text": "a", "beam": 3}, 400, 'Unknown field "beam". The fields are: text,'),
    ("/translate", {"text": "a", "beam_size": "4"}, 400, "beam_size is an integer"),
    ("/translate", {"text": "a", "beam_size": 17}, 400, "at most 16 here, got 17"),
    ("/translate", {"text": "a", "beam_size": True}, 400, "got True"),
    ("/translate", {"text": "a", "n_best": 3}, 400, "n_best=3 and beam_size=2"),
    ("/translate", {"text": "a", "min_length": "3"}, 400, "min_length is an integer"),
    ("/translate", {"text": "a", "max_length": 61}, 400, "max_length is at most 60 here, got 61"),
    (
        "/translate",
        {"text": "a", "max_length": 2, "min_length": 3},
        400,
        "max_length is an integer",
    ),
    ("/translate", {"text": "a", "no_repeat_ngram": 11}, 400, "no_repeat_ngram is at most 10"),
    ("/translate", {"text": "a", "repetition_penalty": 101}, 400, "penalty is at most 100 here"),
    ("/translate", {"text": "a", "suppress": "b"}, 400, "suppress takes a list of strings"),
    ("/translate", {"text": "a", "suppress": ["b"] * 101}, 400, "at most 100 words here, got 101"),
    ("/translate", {"text": "a", "suppress": [LONG[:99]]}, 413, "A word of suppress has"),
    ("/translate", {"text": "a", "adjust": []}, 400, 'Unknown field "adjust"'),
    ("/translate", {"text": "a", "sampling": True}, 400, "with some of temperature, top_k, top_p"),
    ("/translate", {"text": "a", "sampling": {"k": 1}}, 400, '"sampling" is an object'),
    ("/translate", {"text": "a", "sampling": {"top_p": 2}}, 400, "top_p is above 0 and at most 1"),
    ("/translate", {"text": "a", "sampling": {"temperature": 1e-9}}, 400, "is at least 0.01 here"),
    ("/translate", {"text": "a", "sampling": {}, "n_best": 17}, 400, "n_best is at most 16 here"),
    ("/translate", {"text": "a", "sampling": {}, "terminology": ["b"]}, 400, "needs a beam"),
    ("/translate", {"text": "a", "prefix": ["b"]}, 400, "\"prefix\" is ['b'], which is no string"),
    ("/translate", {"texts": ["a"], "prefix": ["b", "c"]}, 400, "got 2 for 1 texts"),
    ("/translate", {"text": "a", "prefix": LONG}, 413, "A prefix has"),
    ("/translate", {"text": "a", "prefix": "b c", "max_length": 1}, 400, "do not fit into 1"),
    ("/translate", {"texts": ["a"], "terminology": ["b"]}, 400, "terminology takes a list"),
    ("/translate", {"texts": ["a"], "terminology": []}, 400, "got [] for 1 texts"),
    ("/translate", {"text": "a", "terminology": [LONG[:99]]}, 413, "Ask for fewer phrases"),
    ("/translate", {"text": "a", "alignments": 1}, 400, '"alignments" is true or false, got 1'),
    ("/translate", {"text": "a", "tags": "b"}, 400, '"tags" is true or false, got "b"'),
    ("/translate", {"text": "a", "split": True}, 400, 'such as "en"; got true'),
    ("/translate", {"text": "a", "split": "../x"}, 400, 'such as "en"; got "../x"'),
    ("/translate", {"text": "a", "split": "en", "prefix": "b"}, 400, '"prefix" does not go with'),
    (
        "/translate",
        {"text": "a", "tags": True, "n_best": 2},
        400,
        '"n_best" does not go with "tags',
    ),
    ("/translate", {"text": "I go. " * 6, "split": "en"}, 413, "6 sentences, and at most 5"),
    ("/translate", {"text": "a", "length_penalty": -1}, 400, "length_penalty is a number"),
    ("/translate", b'{"text": "a", "length_penalty": NaN}', 400, "length_penalty is a number"),
    ("/translate", {"text": "a", "length_penalty": 10**400}, 400, "too large"),
    ("/translate", {"text": "a", "length_penalty": 1e308}, 400, "at least 0 and at most 10, got"),
    ("/translate", {"text": LONG}, 413, "tokens, and at most 60 are allowed"),
    ("/translate", {"texts": ["a", LONG]}, 413, "source text 2 of 2 has"),
    ("/translate", {"text": "a" * 6000}, 413, "at most 5000 are allowed"),
    ("/explain", {"text": " "}, 400, "nothing to explain"),
    ("/explain", {"target": "a"}, 400, 'Give "text"'),
    ("/explain", {"text": "a", "target": 1}, 400, '"target" is 1'),
    ("/explain", {"text": "a", "n_best": 1}, 400, "Unknown field"),
    ("/explain", {"text": LONG[:150]}, 413, "The source has"),
    ("/explain", {"text": "a", "target": LONG[:150]}, 413, "The target has"),
    ("/none", None, 404, "There is no GET /none here. There are: POST /translate"),
    ("/translate", None, 405, "There is no GET /translate here"),
]


# Fails if: a check of `requests` is left out, or its error is not one of the client.
@ONE_BACKEND
def test_mistakes_get_an_error_that_says_what_is_allowed(port):
    for path, body, expected, message in REFUSED:
        status, headers, text = ask(port, path, body)
        assert (status, headers["content-type"]) == (expected, "application/json"), text
        assert list(json.loads(text)) == ["error"] and message in json.loads(text)["error"], text
    status, _, text = ask(port, "/translate", {"text": "a"}, {"Content-Type": "text/plain"})
    assert status == 415 and "Content-Type: application/json" in json.loads(text)["error"]
    counted = metrics(port)
    for status in (400, 413):
        number = sum(each[0] == "/translate" and each[2] == status for each in REFUSED)
        name = f'keras_transformer_requests_total{{path="/translate",status="{status}"}}'
        assert counted[name] == number
    assert counted['keras_transformer_requests_total{path="other",status="404"}'] == 1
    assert answer(port, "/translate", {"text": "나는"})  # all this did no harm


@ONE_BACKEND
def test_a_body_is_not_read_beyond_its_limit(port):
    """Fails if: only the header is believed; the answer is lost because the rest is not read."""
    status, _, text = ask(port, "/translate", {"text": "a" * 3_000_000})
    assert status == 413 and "has 3000012 bytes" in json.loads(text)["error"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        spaces = (b" " * 1000 for _ in range(3000))
        connection.request("POST", "/translate", spaces, JSON, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413 and b"at most 5000 are allowed" in response.read()


# Fails if: any number of searches is compiled; a new number counts as one, or another prefix,
# size or top_k does not.
@ONE_BACKEND
def test_few_kinds_of_searches_are_compiled(translator):
    # Blank texts, which need no search. The default is kept with one and with several results.
    with served(translator, searches=3) as (port, _):
        assert answer(port, "/translate", {"text": "", "length_penalty": 0.5})
        status, _, text = ask(port, "/translate", {"text": "", "length_penalty": 0.4})
        assert status == 400
        usual = "beam_size=2, length_penalty=0.6; beam_size=2, length_penalty=0.6, n_best."
        assert f"these: beam_size=2, length_penalty=0.5; {usual}" in json.loads(text)["error"]
        for length in (1, 2, 3):
            body = {"text": "", "length_penalty": 0.5, "max_length": length}
            assert answer(port, "/translate", body)
    with served(translator, searches=3) as (port, _):
        for number in (1, 2, 3):
            numbers = {"min_length": number, "suppress": ["a"] * number, "repetition_penalty": 2.0}
            assert answer(port, "/translate", {"text": "", **numbers})
        for more, says in (
            ({"no_repeat_ngram": 1}, "A search with beam_size=2, length_penalty=0.6, no_repeat_ng"),
            ({"prefix": "a"}, "A search with beam_size=2, length_penalty=0.6, prefix would be"),
            ({"sampling": {"top_k": 3}}, "A search with length_penalty=0.6, sampling, top_k=3 "),
        ):
            status, _, text = ask(port, "/translate", {"text": "", **more})
            assert status == 400 and says in json.loads(text)["error"]
    assert "min_length, repetition_penalty, suppress" in json.loads(text)["error"]


# Fails if: the server says that it is ready too early; requests are lost meanwhile; the end waits
# for all shapes; the page's alternatives are not among them.
@ONE_BACKEND
def test_the_usual_shapes_are_compiled_before_the_first_request(translator, monkeypatch, capsys):
    compiled, go = [], threading.Event()

    def compile_search(wanted, width, rows):
        compiled.append((width, rows, wanted.n))
        assert go.wait(30)

    monkeypatch.setattr(translator, "compile_search", compile_search)
    for ends_early in (False, True):
        compiled.clear()
        go.clear()
        translator.calls.clear()
        limits = {"batch_size": 4, "queue": 1, "sentences": 1}
        with served(translator, warm_up=True, **limits) as (port, end), ThreadPoolExecutor(1) as p:
            wait_until(lambda: compiled)
            status, _, text = ask(port, "/health")
            assert (status, json.loads(text)["status"]) == (503, "warming up")
            if ends_early:
                end()
                wait_until(lambda: not accepts(port))
                time.sleep(0.1)  # until the rest is cancelled
                go.set()
                continue
            asked = p.submit(answer, port, "/translate", {"text": ""})
            wait_until(lambda: waiting(port) == 1)
            assert not translator.calls
            go.set()
            assert asked.result()["translation"] == ""
            assert ask(port, "/health")[0] == 200
        # `quick_search` has one number of rows.
        assert compiled == [(16, 64, 1), (16, 64, 2), (32, 64, 1), (32, 64, 2)]
    assert compiled == [(16, 64, 1)]
    assert capsys.readouterr().err.count("ready: compiled") == 1


# Fails if: requests whose time is over are translated; the queue counts them; Retry-After lacks.
@ONE_BACKEND
def test_a_full_queue_and_a_late_answer_are_refused(translator):
    translator.calls.clear()
    # Blank texts, which need no search: on a busy machine one could take longer than the limit.
    one, two, three = [""], ["", " "], ["", " ", "  "]
    limits = {"queue": 4, "sentences": 4, "seconds": 1.5}
    with served(translator, **limits) as (port, _), ThreadPoolExecutor(3) as pool:
        translator.go.clear()
        try:
            late = [pool.submit(ask, port, "/translate", {"texts": one})]
            wait_until(lambda: translator.calls)
            late.append(pool.submit(ask, port, "/translate", {"texts": two}))
            wait_until(lambda: waiting(port) == 2)
            status, headers, text = ask(port, "/translate", {"texts": three})
            assert (status, headers["retry-after"]) == (503, "1")
            assert "2 of 4 sentences wait, and this request has 3" in json.loads(text)["error"]
            for each in late:
                status, _, text = each.result()
                assert status == 504 and "within 1.5 seconds" in json.loads(text)["error"]
            assert waiting(port) == 0
        finally:
            translator.go.set()
        assert answer(port, "/translate", {"texts": three})["translations"]
    assert translator.calls == [one, three]


def waiting(port):
    return json.loads(ask(port, "/health")[2])["waiting"]


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@ONE_BACKEND
def test_an_error_of_the_model_is_answered_and_counted(translator):
    with served(translator) as (port, _):
        translator.error = RuntimeError("out of luck")
        try:
            status, _, text = ask(port, "/translate", {"text": "a"})
        finally:
            translator.error = None
        assert status == 500
        assert json.loads(text)["error"] == "The server failed: RuntimeError: out of luck"
        assert answer(port, "/translate", {"text": "a"})
        counted = metrics(port)
    assert counted["keras_transformer_failures_total"] == 1
    assert counted['keras_transformer_requests_total{path="/translate",status="500"}'] == 1


# --- the end


@ONE_BACKEND
def test_what_was_accepted_is_answered_at_the_end(translator):
    with ThreadPoolExecutor(2) as pool, served(translator) as (port, end):
        translator.go.clear()
        translator.calls.clear()
        try:
            first = pool.submit(answer, port, "/translate", {"text": "나는"})
            wait_until(lambda: translator.calls)
            second = pool.submit(answer, port, "/translate", {"text": "너는"})
            wait_until(lambda: waiting(port) == 1)
            end()
            wait_until(lambda: not accepts(port))
        finally:
            translator.go.set()
        expected = translator.translate(["나는", "너는"], 2)
        assert [first.result()["translation"], second.result()["translation"]] == expected


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# --- the batcher


# Fails if: another kind joins; a batch exceeds the limit; a failure spoils its neighbours; what
# waits at the end is not answered.
def test_requests_that_wait_are_joined_by_kind_oldest_first():
    calls, go = [], threading.Event()

    def work(kind, texts):
        calls.append((kind, texts))
        assert go.wait(30)
        if "bad" in texts:
            raise ValueError("bad")
        return [f"{kind}{text}" for text in texts]

    batcher = Batcher(work, most=4, queue=14)
    batcher.start()
    first = batcher.submit(0, ["first"])
    wait_until(lambda: calls)
    asked = [(1, "ab"), (2, "c"), (1, ["bad"]), (1, "de"), (1, "f"), (2, "ghijk")]
    futures = [batcher.submit(kind, list(texts)) for kind, texts in asked]
    gone = batcher.submit(1, ["gone"])
    with pytest.raises(QueueFull, match="13 texts wait already"):
        batcher.submit(1, ["x", "y"])
    assert gone.cancel() and batcher.waiting == 12
    go.set()
    batcher.close()
    assert calls[1:] == [
        (1, ["a", "b", "bad", "f"]),
        *((1, ["a", "b"]), (1, ["bad"]), (1, ["f"])),
        (2, ["c"]),
        (1, ["d", "e"]),
        (2, list("ghijk")),
    ]
    assert first.result(0) == ["0first"]
    for (kind, texts), future in zip(asked, futures, strict=True):
        if texts == ["bad"]:
            assert isinstance(future.exception(0), ValueError)
        else:
            assert future.result(0) == [f"{kind}{text}" for text in texts]
    with pytest.raises(RuntimeError, match="ending"):
        batcher.submit(1, ["late"])


# --- the command


@pytest.fixture(scope="module")
def run(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    model.compile(optimizer="sgd")
    with kt.RunDirectory.start(path, {}) as directory:
        directory.save_checkpoint(model, 1, {})
    tokenizer.save(path / "tokenizer.model")
    return path


@ONE_BACKEND
def test_what_cannot_be_served_is_one_line(run, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, message in (
            ([f"--port={port}"], f"Nothing can listen at 127.0.0.1, port {port}: "),
            (["--port=70000"], "Nothing can listen at 127.0.0.1, port 70000: "),
            (["--max-queue=9"], "queue of 9 sentences cannot hold a request of 256"),
        ):
            assert cli.main(["serve", str(run), *options]) == 1
            assert message in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", str(run)]) == 1
    assert "pip install keras-transformer-kit[serve]" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "keras_transformer.serving.endpoints", raising=False)
    with pytest.raises(ValueError, match="kit.serve"):
        kt.serving.app(kt.load_translator(run))
    for value in (0, -1, float("nan"), "1"):
        with pytest.raises(ValueError, match="seconds is a number"):
            Limits(seconds=value)


# Fails if: SIGTERM ends the process at once; a wrong status; the port is open to other machines.
@pytest.mark.slow
@ONE_BACKEND
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_after_what_it_accepted(run, number, status):
    code = (
        # A parent that ignores Ctrl-C (a script in the background) passes this on to its children.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_transformer.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "serve", str(run), "--port=0", "--no-warm-up"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process, ThreadPoolExecutor(1) as pool:
        line = next(line for line in process.stderr if line.startswith("serving at"))
        port = int(re.fullmatch(r"serving at http://127.0.0.1:(\d+)/ until Ctrl-C\n", line)[1])
        # The first search compiles for seconds.
        asked = pool.submit(answer, port, "/translate", {"text": "나는 집에 간다"})
        wait_until(lambda: "_total 0" not in str(metrics(port)) and port)
        time.sleep(0.5)
        assert not asked.done()
        process.send_signal(number)
        assert set(asked.result(60)) == {"translation", "score", "warnings"}
        rest = process.stderr.read()
    assert process.returncode == status
    assert "ended after 2 request(s)" in rest and "Traceback" not in rest


# --- the page


# Fails if: the policy has another hash; a placeholder is left; a text lacks its translation.
@ONE_BACKEND
def test_the_page_needs_nothing_from_outside(port):
    status, headers, body = ask(port, "/")
    text = body.decode()
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    outside = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.|<link|src=|/\*[A-Z]+\*/", outside)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("script", "style"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    said = set(re.findall(r'data-(?:say|hint)="(\w+)"', text)) | set(
        re.findall(r"say\.(\w+)", text)
    )
    english, korean = re.findall(r"^  (?:en|ko): \{\n(.*?)^  \},", text, re.DOTALL | re.M)
    for language in (english, korean):
        assert set(re.findall(r'(\w+): "', language)) >= said


# Fails if: text is written as HTML; the policy forbids the page's own style; no head is shown; the
# words of the wrong side are shown.
@pytest.mark.slow
@ONE_BACKEND
def test_a_person_translates_and_looks_at_every_head(translator, tmp_path):
    if browser.browser() is None:
        pytest.skip("needs chromium")
    text = HOSTILE
    with served(translator) as (port, _):
        url = f"http://127.0.0.1:{port}/"
        with browser.opened(url, tmp_path / "profile") as page:
            assert page.evaluate("document.documentElement.lang") == "en"
            page.evaluate(
                f"$('text').value = {json.dumps(text)}; $('beam').value = 8; $('go').click()"
            )
            page.wait("document.querySelectorAll('#heads .words').length === 2")
            found = translator.n_best([text], 8, 8)[0]
            assert page.evaluate("$('translation').textContent") == found[0].text
            alternatives = page.evaluate(
                "[...$('alternatives').querySelectorAll('button')]"
                ".map(button => button.firstChild.data.slice(0, -1))"
            )
            assert alternatives == [each.text for each in found]
            assert page.evaluate("$('warnings').textContent").startswith("never seen in training")
            words = page.evaluate("[...$('sourcewords').children].map(word => word.textContent)")
            assert words == [*text.split(), "</s>"]
            assert page.evaluate("document.querySelectorAll('script, img').length") == 1

            explained = answer(port, "/explain", {"text": text, "target": found[0].text})
            last = len(explained["output_words"]) - 1
            page.move_over(f"$('targetwords').children[{last}]")
            assert heads(page) == near(explained["choosing"][1], last)
            assert page.evaluate("document.querySelector('.asks').parentNode.id") == "targetwords"
            page.move_over("$('sourcewords').children[1]")
            assert heads(page) == near(explained["weights"]["words"]["encoder"][1], 1)
            page.evaluate("$('look').value = 0; $('look').onchange()")
            assert heads(page) == near(explained["weights"]["words"]["encoder"][0], 1)

            page.evaluate("$('language').value = 'ko'; $('language').onchange()")
            assert page.evaluate("$('go').textContent") == "번역"
            assert page.evaluate("$('heads').firstChild.textContent") == "헤드 1"
            page.screenshot(tmp_path / "page.png")
            page.evaluate("$('alternatives').querySelectorAll('button')[1].click()")
            wanted = answer(port, "/explain", {"text": text, "target": found[1].text})
            shown = "[...$('targetwords').children].map(word => word.textContent).join()"
            page.wait(f"{shown} === {json.dumps(','.join(wanted['output_words']))}")
            page.evaluate("$('text').value = '가 '.repeat(5000); $('go').click()")
            page.wait("$('error').textContent.includes('at most 511 are allowed')")
            # The error above is the only thing that the browser complains about.
            assert [each["entry"]["source"] for each in page.said] == ["network"]
        with browser.opened(url, tmp_path / "other", language="ko") as page:
            assert page.evaluate("document.documentElement.lang") == "ko"


def heads(page):
    """Returns the weights that the page shows, a list for each head."""
    return page.evaluate(
        "[...document.querySelectorAll('#heads .words')].map(line => "
        "[...line.children].map(word => +word.title))"
    )


def near(layer, row):
    return [pytest.approx(head[row], abs=1e-3) for head in layer]
