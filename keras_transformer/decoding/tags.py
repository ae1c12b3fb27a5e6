"""Tags and placeholders: taken out of a text, and put back into its translation by alignment.

The model translates plain text. The links between words then say where tags go: "alignment
reinsertion" of Müller (2017, https://aclanthology.org/W17-4804).
"""

import collections
import dataclasses
import html
import html.entities
import itertools
import re

from keras_transformer.decoding.alignment import Links
from keras_transformer.decoding.projection import Item, written

ENTITY = re.compile(r"&(?:#\d+|#[xX][\da-fA-F]+|\w+);")
ITEM = re.compile(
    r"""
    <(?P<slash>/?)(?P<name>[^\W\d][\w:.-]*)(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*+|/)?>
    | <!--.*?--> | <!\[CDATA\[.*?\]\]> | <\?.*?\?> | <![A-Za-z][^<>]*>
    | &\w+;                                          # an entity; those of HTML are text
    | \{\{[^{}]*\}\} | [$%\#]?\{[^{}\s]*\}            # {{ name }} {name} ${name} %{name}
    | (?<!\d)%(?:\(\w+\)|\d+\$)?[-+\#0]*\d*(?:\.\d+)?[sdifgxuc@]    # %s %(name)s %1$s %.2f
    | \$[1-9](?![\d.,]*\d)                            # $1, but not $15 or $1.50
    """,
    re.VERBOSE | re.DOTALL,
)
# At the end of the text before a tag, and at the beginning of the one behind it.
PUNCTUATION = {-1: re.compile(r"[^\w\s]*$"), 1: re.compile(r"^[^\w\s]*")}


@dataclasses.dataclass(frozen=True)
class Tagged:
    """A text without its tags and placeholders, and where they were.

    Attributes:
        text: What is to be translated. A text without items is unchanged. In others, white space
            is one space, and the entities of HTML are the characters that they name.
        root: An `Item` around everything.
        escapes: Whether the text is written as HTML or XML, where "&" is "&amp;".
    """

    text: str
    root: Item
    escapes: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing was taken out."""
        return not (self.root.items or self.escapes)

    def put_back(self, translation: str, links: Links) -> str:
        """Returns the translation of `text` with the tags and placeholders in it.

        A pair of tags encloses the words that belong to the words that it enclosed, from the first
        to the last. If two pairs side by side would overlap, the longer one gives way. What is
        alone goes before the word that belongs to the next word of the source, or to the end.

        Args:
            translation: The translation of `text`.
            links: Which words belong together; see `Translator.align`.
        """
        if self.is_plain:
            return translation
        targets: dict[int, list[int]] = collections.defaultdict(list)
        for source, target in links:
            targets[source].append(target)
        escape = _escaped if self.escapes else str
        return written(self.root, translation.split(), targets, escape)


def take_out(text: str) -> Tagged:
    """Takes tags and placeholders out of a text.

    Tags are those of HTML and XML, comments too. A tag without its counterpart is alone; "a < b" is
    text. Placeholders are `{name}`, `{{name}}`, `${name}`, `%s`, `%(name)s`, `%1$s`, `$1` and their
    like.

    Args:
        text: A string.

    Example:

    ```python
    tagged = take_out("Press <b>the key</b> now")
    tagged.text                                                   # "Press the key now"
    tagged.put_back("Die Taste jetzt", [(1, 0), (2, 1), (3, 2)])  # "<b>Die Taste</b> jetzt"
    ```
    """
    parts = _parts(text)
    texts = [part for part, match in parts if match is None]
    marked = any(part[0] in "<&" for part, match in parts if match)
    marked |= any(map(ENTITY.search, texts))
    escapes = marked and not any(re.search("[&<]", ENTITY.sub("", each)) for each in texts)
    if len(texts) == len(parts) and not escapes:
        return Tagged(text, Item("", "", 0, 0))
    if escapes:
        read = [(part if match else html.unescape(part), match) for part, match in parts]
        parts = [part for part in read if part[0]]
    words, items = _Reader(parts).read()
    return Tagged(" ".join(words), Item("", "", 0, len(words), items), escapes)


def _parts(text):
    """Splits a text into pairs of a string and the match of `ITEM`, or None for text."""
    parts: list[tuple[str, re.Match | None]] = []
    place = 0
    for match in ITEM.finditer(text):
        if match[0][1:] in html.entities.html5:  # "&amp;" is text
            continue
        parts += [(text[place : match.start()], None), (match[0], match)]
        place = match.end()
    return [part for part in (*parts, (text[place:], None)) if part[0]]


def _pairs(parts):
    """Returns {number of an opening tag: number of the tag that closes it}."""
    pairs: dict[int, int] = {}
    opened: list[tuple[int, str]] = []
    for number, (part, match) in enumerate(parts):
        if not (match and match["name"]) or part.endswith("/>"):
            continue
        name = match["name"].lower()
        if not match["slash"]:
            opened.append((number, name))
        elif same := [place for place, each in enumerate(opened) if each[1] == name]:
            pairs[opened[same[-1]][0]] = number
            del opened[same[-1] :]  # those inside have no counterpart
    return pairs


class _Reader:
    """Reads the parts of a text one by one, and collects its words and its items."""

    def __init__(self, parts):
        full = list(itertools.accumulate(not match and not part.isspace() for part, match in parts))
        self.parts, self.partners = parts, _pairs(parts)
        # Tags around no word are alone, with all that is between them.
        self.pairs = {a: b for a, b in self.partners.items() if full[a] < full[b]}
        self.closing = set(self.pairs.values())
        self.words: list[str] = []
        self.begins: list[int] = []  # of each text, its first word
        self.goes_on = False  # whether the next text continues the last word
        # The pairs around a part: the number of the opening tag, how many texts and words there
        # were before it, and the items inside so far.
        self.around: list[tuple[int, int, int, list[Item]]] = [(0, 0, 0, [])]

    def read(self):
        """Returns the words and the items."""
        number = 0
        while number < len(self.parts):
            part, match = self.parts[number]
            if match is None:
                self._text(part)
            elif number in self.pairs:
                # "</td><td>" is between words.
                self.goes_on = self.goes_on and number - 1 not in self.closing
                self.around.append((number, len(self.begins), len(self.words), []))
            elif number in self.closing:
                self._close(number)
            else:
                number = self._alone(number, self.partners.get(number, number))
            number += 1
        return self.words, tuple(self.around[0][-1])

    def _text(self, part):
        found = part.split()
        if found:
            self.goes_on = self.goes_on and not part[0].isspace()
            self.begins.append(len(self.words) - self.goes_on)
            if self.goes_on:
                self.words[-1] += found.pop(0)
            self.words += found
        self.goes_on = bool(self.words) and not part[-1].isspace()

    def _close(self, last):
        first, texts, count, items = self.around.pop()
        begin = self.begins[texts]
        touching = (
            self._touching(first, -1) if begin < count else "",
            self._touching(last, 1) if self.goes_on else "",
        )
        plain = self.goes_on and self.words[-1][-1].isalnum()
        tags, inside = (self.parts[first][0], self.parts[last][0]), tuple(items)
        item = Item(*tags, begin, len(self.words), inside, touching, plain)
        self.around[-1][-1].append(item)

    def _alone(self, first, last):
        text = "".join(part for part, _ in self.parts[first : last + 1])
        before, behind = (next(self._beside(*way))[0] for way in ((first, -1), (last, 1)))
        beside = before[-1], behind[0]
        if first == last and self.parts[first][1]["name"] and not text.endswith("/>"):
            beside = before[-1], " "  # so that it is no part of a pair, wherever it goes
        word = len(self.words)
        self.around[-1][-1].append(Item(text, "", word, word, (), beside))
        self.goes_on = False
        return last

    def _beside(self, number, step):
        """Yields the parts before (step -1) or behind (1) a part, but no tags of pairs."""
        while 0 <= (number := number + step) < len(self.parts):
            if number not in self.pairs and number not in self.closing:
                yield self.parts[number]
        yield " ", None

    def _touching(self, number, step):
        """The punctuation of the same word before or behind the tag of a pair."""
        found = ""
        for part, match in self._beside(number, step):
            some = "" if match else PUNCTUATION[step].search(part)[0]
            found = some + found if step < 0 else found + some
            if some != part:
                break
        return found


def _escaped(word):
    return html.escape(word, quote=False)
