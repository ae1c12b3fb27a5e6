"""The WMT14 distribution, read from the downloaded archives without unpacking them.

```
TrainingText("data", "de")       English-German pairs of all training corpora, a stream
newstest("data", "de", 2014)     [(source, reference), ...] of a test set
```
"""

import gzip
import itertools
import re
import tarfile
import zlib
from pathlib import Path
from xml.sax.saxutils import unescape

from keras_transformer.data import decode_line

HOME = "https://www.statmt.org"
# Archives, and their members for a target language and a side.
TRAINING = (
    ("wmt13/training-parallel-europarl-v7.tgz", "training/europarl-v7.{target}-en.{side}"),
    ("wmt13/training-parallel-commoncrawl.tgz", "commoncrawl.{target}-en.{side}"),
    ("wmt14/training-parallel-nc-v9.tgz", "training/news-commentary-v9.{target}-en.{side}"),
)
FRENCH = (
    ("wmt13/training-parallel-un.tgz", "un/undoc.2000.{target}-en.{side}"),
    ("wmt10/training-giga-fren.tar", "giga-fren.release2.fixed.{side}.gz"),
)
NEWSTEST = {
    2013: ("wmt14/dev.tgz", "dev/newstest2013-{kind}.{side}.sgm"),
    2014: ("wmt14/test-full.tgz", "test-full/newstest2014-{target}en-{kind}.{side}.sgm"),
}


class TrainingText:
    """English sentences and their translations. Each iteration reads the archives again.

    Args:
        folder: The folder with the archives.
        target: "de" or "fr".

    Raises:
        ValueError: While reading, if an archive is damaged or lacks a member, or if its text is not
            UTF-8 or not aligned.
    """

    def __init__(self, folder, target):
        self.folder, self.target = Path(folder), target

    def __iter__(self):
        for archive, member in training_corpora(self.target):
            path = self.folder / Path(archive).name
            names = [member.format(target=self.target, side=side) for side in ("en", self.target)]
            # Each side opens the archive by itself, because they are two members of it.
            sides = itertools.zip_longest(*(lines(path, name) for name in names))
            for number, pair in enumerate(sides, start=1):
                if None in pair:
                    raise ValueError(
                        f"{path}: {names[pair.index(None)]} has no line {number}, its other side "
                        "has; remove the archive and fetch it again"
                    )
                yield pair


def newstest(folder, target, year):
    """Reads the test set of 2013 or 2014: a list of `(source, reference)`, English first."""
    archive, member = NEWSTEST[year]
    path = Path(folder) / Path(archive).name
    names = [
        member.format(target=target, kind=kind, side=side)
        for kind, side in (("src", "en"), ("ref", target))
    ]
    sources, references = (segments("\n".join(lines(path, name))) for name in names)
    if not sources or len(sources) != len(references):
        raise ValueError(
            f"{path}: found {len(sources)} segments in {names[0]} and {len(references)} in "
            f"{names[1]}, expected as many; remove the archive and fetch it again"
        )
    return list(zip(sources, references, strict=True))


def training_corpora(target):
    return TRAINING + FRENCH if target == "fr" else TRAINING


def archives(folder, target):
    """Returns {URL: path} of all archives that a pair needs, existing or not."""
    names = [archive for archive, _ in (*training_corpora(target), *NEWSTEST.values())]
    return {f"{HOME}/{name}": Path(folder) / Path(name).name for name in names}


def lines(path, member):
    """Yields the lines of a member of a tar archive, as `kt.data.read_lines` does.

    A member whose name ends in .gz is decompressed.
    """
    try:
        with tarfile.open(path) as archive:
            for info in archive:
                if info.name.removeprefix("./") == member and info.isfile():
                    file = archive.extractfile(info)
                    file = gzip.open(file) if member.endswith(".gz") else file
                    for number, line in enumerate(file, start=1):
                        yield decode_line(line.removesuffix(b"\n"), number, f"{path}: {member}")
                    return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = str(error).partition("\n")[0]  # tarfile lists every format that it tried
        raise ValueError(
            f"{path} is not a whole archive ({reason}); remove it and fetch it again"
        ) from error
    raise ValueError(f"{path} has no {member}; is it the archive of {HOME}?")


def segments(sgm):
    """Returns the sentences of an SGM file: its `<seg>` elements, with single spaces."""
    found = re.findall(r"<seg\b[^>]*>(.*?)</seg>", sgm, re.DOTALL)
    return [" ".join(unescape(text, {"&quot;": '"', "&apos;": "'"}).split()) for text in found]
