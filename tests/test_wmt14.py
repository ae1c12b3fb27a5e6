"""Tests of the WMT14 recipe on small archives of the same form: reading, test sets, training."""

import fcntl
import functools
import gzip
import http.server
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import downloads
import numpy as np
import pytest
import translate_wmt14
import wmt14_data

from keras_transformer.runs import checkpoints as checkpoint_files

pytestmark = pytest.mark.tensorflow_only  # the last test sets its own backend

RECIPE = Path(translate_wmt14.__file__)
MEMBERS = {
    "training-parallel-europarl-v7.tgz": "training/europarl-v7.{}-en.{}",
    "training-parallel-commoncrawl.tgz": "commoncrawl.{}-en.{}",
    "training-parallel-nc-v9.tgz": "training/news-commentary-v9.{}-en.{}",
    "training-parallel-un.tgz": "un/undoc.2000.{}-en.{}",
}


def write_archive(path, members):
    """Writes a tar archive of {name: bytes}, gzipped if the path ends with .tgz."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def sgm(kind, lines):
    segments = "\n".join(f'<seg id="{i}">{line}</seg>' for i, line in enumerate(lines, 1))
    return (
        f'<{kind}set setid="newstest" srclang="any" trglang="any">\n'
        f'<doc sysid="ref" docid="1" genre="news" origlang="en">\n<p>\n{segments}\n</p>\n</doc>\n'
        f"</{kind}set>\n"
    ).encode()


def sentences(count, seed):
    """Returns pairs of words and their reversed spellings."""
    rng = random.Random(seed)
    sources = [" ".join(rng.choices("ba be bo da de do".split(), k=6)) for _ in range(count)]
    return [(text, " ".join(word[::-1] for word in text.split())) for text in sources]


def write_distribution(folder, target="de", count=20):
    """Writes all archives of a pair, and returns the training pairs in their order."""
    folder.mkdir()
    pairs = []
    for number, (name, member) in enumerate(MEMBERS.items()):
        if target == "de" and "un" in name.split("-")[-1]:
            continue
        part = sentences(count, number)
        pairs += part
        text = ["".join(f"{line}\n" for line in side).encode() for side in zip(*part, strict=True)]
        # As in the originals, the target comes before the source, with other files between them.
        write_archive(
            folder / name,
            {
                member.format("cs", "en"): b"jiny\n",
                member.format(target, target): text[1],
                "../" + member.format(target, "en"): b"outside\n",
                member.format(target, "en") + ".bak": b"other\n",
                member.format(target, "en"): text[0],
            },
        )
    if target == "fr":
        part = sentences(count, 4)
        pairs += part
        write_archive(
            folder / "training-giga-fren.tar",
            {
                f"giga-fren.release2.fixed.{language}.gz": gzip.compress(
                    "".join(f"{line}\n" for line in side).encode()
                )
                for language, side in zip(("en", "fr"), zip(*part, strict=True), strict=True)
            },
        )
    for path, stem, seed in (
        ("dev.tgz", "dev/newstest2013-", 5),
        ("test-full.tgz", f"test-full/newstest2014-{target}en-", 6),
    ):
        sources, references = zip(*sentences(5, seed), strict=True)
        write_archive(
            folder / path,
            {
                f"{stem}src.en.sgm": sgm("src", sources),
                f"{stem}src.{target}.sgm": sgm("src", ["other side"] * 5),
                f"{stem}ref.en.sgm": sgm("ref", ["other side"] * 5),
                f"{stem}ref.{target}.sgm": sgm("ref", references),
            },
        )
    return pairs


# Fails if: a member is found by a part of its name; the sides are swapped.
@pytest.mark.parametrize("target", ["de", "fr"])
def test_all_pairs_come_in_order_and_again_and_nothing_is_unpacked(target, tmp_path):
    pairs = write_distribution(tmp_path / "data", target)
    assert len(pairs) == {"de": 60, "fr": 100}[target]
    before = sorted(tmp_path.rglob("*"))
    text = wmt14_data.TrainingText(tmp_path / "data", target)
    assert list(text) == pairs and list(text) == pairs
    assert wmt14_data.newstest(tmp_path / "data", target, 2013) == sentences(5, 5)
    assert wmt14_data.newstest(tmp_path / "data", target, 2014) == sentences(5, 6)
    assert sorted(tmp_path.rglob("*")) == before
    paths = wmt14_data.archives(tmp_path / "data", target).values()
    assert sorted(paths) == [path for path in before if path.is_file()]


def test_a_stream_begins_before_the_archive_is_read_to_its_end(tmp_path):
    write_distribution(tmp_path / "data")
    (tmp_path / "data" / "training-parallel-nc-v9.tgz").unlink()
    first = next(iter(wmt14_data.TrainingText(tmp_path / "data", "de")))
    assert first == sentences(20, 0)[0]


def test_lines_end_with_newline_only(tmp_path):
    path = tmp_path / "a.tgz"
    write_archive(path, {"./x": "a\u2028b\r\n\n c\x0bd \n\ne".encode()})
    assert list(wmt14_data.lines(path, "x")) == ["a\u2028b", "", " c\x0bd ", "", "e"]


# Fails if: links are followed.
def test_a_member_that_is_no_file_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(info)
    with pytest.raises(ValueError, match="has no x"):
        list(wmt14_data.lines(tmp_path / "a.tgz", "x"))


# Fails if: entities are not replaced; all entities of HTML are replaced.
def test_segments_are_the_text_of_an_sgm_file():
    text = (
        '<srcset setid="a" srclang="any">\n<doc docid="b">\n<hl>\n'
        '<seg id="1">A &amp; B &lt;c&gt; &quot;d&quot; it&apos;s</seg>\n</hl>\n<p>\n'
        '<seg id="2">  two   words\n</seg><seg id="3"></seg>\n'
        '<seg id="4">S&P &amp;quot; &section; 4 > 3</seg>\n</p>\n</doc>\n</srcset>\n'
    )
    expected = ['A & B <c> "d" it\'s', "two words", "", "S&P &quot; &section; 4 > 3"]
    assert wmt14_data.segments(text) == expected


def damage(path, how):
    content = path.read_bytes()
    member = MEMBERS[path.name].format("de", "en")
    if how == "cut":
        path.write_bytes(content[:-30])
    elif how == "no archive":
        path.write_bytes(b"<html>not found</html>")
    elif how == "member missing":
        write_archive(path, {"other": b"x\n"})
    else:
        text = {"short": b"a\n", "long": b"a\n" * 99, "latin-1": "é\n".encode("latin-1")}[how]
        write_archive(path, {member: text, member[:-2] + "de": b"b\n" * 2})


# Fails if: the pairs are cut to the shorter side.
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "not a whole archive .*fetch it again"),
        ("no archive", "not a whole archive .*fetch it again"),
        ("member missing", "has no commoncrawl.de-en.en"),
        ("short", "commoncrawl.de-en.en has no line 2, its other side has"),
        ("long", "commoncrawl.de-en.de has no line 3, its other side has"),
        ("latin-1", "commoncrawl.de-en.en, line 1: byte 0xe9 is not UTF-8"),
    ],
)
def test_a_damaged_archive_is_named(how, says, tmp_path):
    write_distribution(tmp_path / "data")
    damage(tmp_path / "data" / "training-parallel-commoncrawl.tgz", how)
    with pytest.raises(ValueError, match=f"training-parallel-commoncrawl.tgz.* {says}"):
        list(wmt14_data.TrainingText(tmp_path / "data", "de"))


@pytest.mark.parametrize("references", [[], ["a", "b", "c"]])
def test_test_sets_that_do_not_fit_are_refused(references, tmp_path):
    stem = "dev/newstest2013-"
    members = {f"{stem}src.en.sgm": sgm("src", ["a", "b"])}
    write_archive(tmp_path / "dev.tgz", members | {f"{stem}ref.de.sgm": sgm("ref", references)})
    with pytest.raises(ValueError, match=f"found 2 segments in .* and {len(references)} in"):
        wmt14_data.newstest(tmp_path, "de", 2013)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content` by ranges or whole, and stops after `most` bytes."""

    content, ranges, most = bytes(range(256)) * 9, True, None

    def do_GET(self):
        first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        size = len(self.content)
        Server.asked.append(first)
        if self.ranges and first >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        body = self.content[first:] if self.ranges else self.content
        self.send_response(206 if self.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setattr(Server, "asked", [], raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.tgz"
    server.shutdown()
    server.server_close()


# Fails if: a short download is kept; a whole file is appended to a part of it.
@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(ranges, url, tmp_path, monkeypatch):
    path = tmp_path / "data" / "a.tgz"
    monkeypatch.setattr(Server, "ranges", ranges)
    monkeypatch.setattr(Server, "most", 700)
    with pytest.raises(OSError, match="broke off at byte 700 of 2,304: the same command again"):
        downloads.download(url, path)
    assert not path.exists()
    monkeypatch.setattr(Server, "most", None)
    downloads.download(url, path)
    assert path.read_bytes() == Server.content
    assert Server.asked == [0, 700]
    assert list(path.parent.iterdir()) == [path]


# Fails if: two processes write into one file.
def test_a_download_of_another_process_is_left_alone(url, tmp_path):
    path = tmp_path / "a.tgz"
    with open(tmp_path / "a.tgz.partial", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="downloaded by another process: wait"):
            downloads.download(url, path)
        assert not path.exists() and not other.tell()
    downloads.download(url, path)
    assert path.read_bytes() == Server.content


def test_a_download_that_was_complete_is_only_renamed(url, tmp_path):
    (tmp_path / "a.tgz.partial").write_bytes(Server.content)
    downloads.download(url, tmp_path / "a.tgz")
    assert (tmp_path / "a.tgz").read_bytes() == Server.content
    (tmp_path / "b.tgz.partial").write_bytes(Server.content + b"more")  # part of another file
    with pytest.raises(OSError, match="416"):
        downloads.download(url, tmp_path / "b.tgz")
    assert not (tmp_path / "b.tgz").exists()


def call(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["translate_wmt14.py", *map(str, options)])
    translate_wmt14.main()


# Fails if: archives are downloaded without the option for it.
@pytest.mark.parametrize(("pair", "count"), [("en-de", 5), ("en-fr", 7)])
def test_missing_archives_are_listed_and_not_fetched(pair, count, tmp_path, monkeypatch):
    write_distribution(tmp_path / "data", pair[-2:])
    (tmp_path / "data" / "dev.tgz").unlink()
    (tmp_path / "data" / "training-parallel-nc-v9.tgz").unlink()
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, "--data", tmp_path / "data", "--pair", pair, "--run-dir", run)
    message, *urls = str(error.value).splitlines()
    assert f"lacks 2 of the {count} archives of {pair}" in message and "--download" in message
    assert urls == [
        "https://www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
        "https://www.statmt.org/wmt14/dev.tgz",
    ]
    assert not run.exists()


def test_missing_archives_are_fetched_on_demand(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        translate_wmt14, "download", lambda url, path: fetched.append((url, path.name))
    )
    with pytest.raises(
        SystemExit, match="No such file.*dev.tgz"
    ):  # which the download was to bring
        call(monkeypatch, "--data", tmp_path, "--download", "--pair", "en-fr")
    home = "https://www.statmt.org/"
    assert fetched == [
        (home + path, path.split("/")[1])
        for path in (
            "wmt13/training-parallel-europarl-v7.tgz",
            "wmt13/training-parallel-commoncrawl.tgz",
            "wmt14/training-parallel-nc-v9.tgz",
            "wmt13/training-parallel-un.tgz",
            "wmt10/training-giga-fren.tar",
            "wmt14/dev.tgz",
            "wmt14/test-full.tgz",
        )
    ]


def test_the_papers_settings():
    assert translate_wmt14.LENGTH["base"][::2] == (100_000, 5)
    assert translate_wmt14.LENGTH["big"][::2] == (300_000, 20)
    assert [size for size, _ in translate_wmt14.VOCABULARY.values()] == [37_000, 32_000]
    rates = {
        (model, pair): translate_wmt14.dropout(model, pair)
        for model in ("base", "big")
        for pair in ("en-de", "en-fr")
    }
    assert rates == {
        ("base", "en-de"): 0.1,
        ("base", "en-fr"): 0.1,
        ("big", "en-de"): 0.3,
        ("big", "en-fr"): 0.1,
    }


def recipe(folder, run, *options, **environment):
    """Starts the recipe on `tiny`. Updates have two small batches, and all are checkpoints."""
    command = [sys.executable, RECIPE, "--data", folder, "--run-dir", run, "--model", "tiny"]
    command += "--vocabulary-size 290 --tokens-per-batch 256 --accumulate 2".split()
    command += ["--validate-every", 1, *options]
    return subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def epochs(run):
    records = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [record for record in records if record["event"] == "validation"]


@pytest.mark.slow
def test_the_recipe_trains_resumes_averages_and_prints_both_scores(tmp_path):
    pytest.importorskip("sacremoses", reason="the `wmt` extra is not installed")
    folder, run = tmp_path / "data", tmp_path / "run"
    write_distribution(folder)
    output = finish(recipe(folder, run, "--updates", 2))
    assert "training a vocabulary of 290 pieces" in output
    assert "60 pairs" in output and "1 device(s)" in output
    scores = [line for line in output.splitlines() if line.startswith("newstest")]
    assert [line.split()[0] for line in scores] == ["newstest2013"] * 2 + ["newstest2014"] * 2
    for line, tokens in zip(scores, ("13a|", "moses-de-sacremoses-") * 2, strict=True):
        assert 0 <= float(line.split()[2]) <= 100 and f"|tok:{tokens}" in line

    moved = folder.rename(tmp_path / "elsewhere")  # the place of the text is no setting
    output = finish(recipe(moved, run, "--updates", 7))
    assert "training a vocabulary" not in output
    assert [record["update"] for record in epochs(run)] == list(range(1, 8))
    assert all(np.isfinite(record["val_nats_per_token"]) for record in epochs(run))
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert saved == [f"update-{update:08}" for update in (3, 4, 5, 6, 7)]
    assert checkpoint_files.read_note(run / "averaged.npz", "updates") == [4, 5, 6, 7]
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    assert settings["archives"]["dev.tgz"] == (moved / "dev.tgz").stat().st_size


# Fails if: a run is resumed on other archives.
def test_another_text_is_refused_on_resuming(tmp_path, monkeypatch):
    pytest.importorskip("sacremoses", reason="the `wmt` extra is not installed")
    options = ["--pair", "en-de", "--run-dir", tmp_path / "run", "--vocabulary-size", 9]
    write_distribution(tmp_path / "a")
    with pytest.raises(SystemExit, match="this text needs at least"):  # of that size
        call(monkeypatch, "--data", tmp_path / "a", *options)
    (tmp_path / "run" / "checkpoints" / "update-00000001").mkdir(parents=True)  # as if trained
    write_distribution(tmp_path / "b", count=30)
    with pytest.raises(SystemExit, match="holds a run with other settings .archives"):
        call(monkeypatch, "--data", tmp_path / "b", *options)


# Fails if: the batches depend on the number of devices.
@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    """With JAX and dropout: batches and masks do not depend on the number of devices."""
    pytest.importorskip("jax")
    pytest.importorskip("sacremoses", reason="the `wmt` extra is not installed")
    write_distribution(tmp_path / "data", "fr")
    start = functools.partial(recipe, tmp_path / "data", KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    flags = "--xla_force_host_platform_device_count="
    # A batch of 152 tokens could have 21 rows of 7 tokens on one device, but 20 rows on two.
    options = ["--pair", "en-fr", "--updates", 2, "--tokens-per-batch", 152]
    processes = {
        devices: start(tmp_path / f"on{devices}", *options, XLA_FLAGS=f"{flags}{devices}")
        for devices in (1, 2)
    }
    plans = set()
    for devices, process in processes.items():
        plan, found, scores = finish(process).partition(f", {devices} device(s)")
        plans.add(plan)
        assert found and scores.count("tok:moses-fr-sacremoses-") == 2
    assert len(plans) == 1 and "padding" in plan
    one, two = (epochs(tmp_path / f"on{devices}") for devices in (1, 2))
    for name in ("nats_per_token", "val_nats_per_token"):
        np.testing.assert_allclose(
            [record[name] for record in two], [record[name] for record in one], rtol=1e-4
        )
