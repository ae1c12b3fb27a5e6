"""Where tags and placeholders go in a translation, by the words that belong together."""

import bisect
import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

ENDS = re.compile("[.,;:!?…。，、！？；：]*$")


@dataclasses.dataclass(frozen=True)
class Item:
    """A pair of tags, or a single item: a placeholder, or a tag without its counterpart.

    Attributes:
        opening: The opening tag, or the whole single item.
        closing: The closing tag; "" for a single item.
        first, last: The source words from `first` to the one before `last` are inside a pair. For a
            single item both are the number of the word that follows it.
        items: The items inside a pair.
        around: For a pair, the punctuation of the same word before and behind it. For a single
            item, the characters before and behind it.
        ends_plain: Whether a pair ends behind a letter or digit.
    """

    opening: str
    closing: str
    first: int
    last: int
    items: tuple["Item", ...] = ()
    around: tuple[str, str] = ("", "")
    ends_plain: bool = False


def written(
    root: Item,
    words: Sequence[str],
    targets: Mapping[int, Sequence[int]],
    escape: Callable[[str], str] = str,
) -> str:
    """Returns the words of a translation as text, with the items inside `root`.

    Args:
        root: An item without tags, around all.
        words: The words of the translation.
        targets: For words of the source, the words of the translation that belong to them.
        escape: What is done to a word when it is written.
    """
    writer = _Writer(escape)
    for act, what in _pieces(root, words, targets):
        act(writer, what)
    return writer.finish()


class _Writer:
    """Writes words and items one behind another, with white space where it belongs."""

    def __init__(self, escape):
        self.text, self.escape = "", escape
        self.opened: list[Item] = []  # pairs whose opening tag is not yet written
        self.held = ""  # punctuation of the last word, which goes behind closing tags
        self.last = self.word = ""  # the last character that is in no tag; the word, if it ends it
        # The character behind the last single item in the source; "" after a word, None at first.
        self.behind: str | None = None

    def write(self, word):
        self._begin("", word[0])
        begun = self._open(word if re.search(r"\w", word) else "")
        self.text += self.escape(word[len(begun) :])
        self.last, self.word, self.behind = word[-1], word, ""

    def alone(self, item):
        self._begin(item.around[0], item.opening[0])
        self._open()
        self.text += item.opening
        self.last, self.word, self.behind = item.opening[-1], "", item.around[1]

    def open(self, item):
        self.opened.append(item)

    def close(self, item):
        if self.opened:  # there is nothing between the tags
            self._begin(" ", " ")
            self._open()
            self.last = self.word = self.behind = ""
        suffix = item.around[1]
        if item.ends_plain:  # such as the full stop of a word that now ends the sentence
            suffix = max(self.held, ENDS.search(self.word)[0], suffix, key=len)
        kept = len(suffix) if self.held.endswith(suffix) else 0
        self._release(len(self.held) - kept)
        if not kept and self.word.endswith(suffix) and re.search(r"\w", self.word):
            self.held, self.text = suffix, self.text.removesuffix(self.escape(suffix))
        self.text += item.closing
        self.word = ""

    def finish(self):
        self._release(len(self.held))
        return self.text

    def _begin(self, before, first):
        """Writes the space before a piece that begins with the character `first`.

        `before` is the character before a single item in the source, or "".
        """
        self._release(len(self.held))
        if self.behind is None:
            space = False
        elif self.behind and before:
            space = (self.behind, before) != (first, self.last)  # not side by side in the source
        elif self.behind or before:
            space = not _touches(*((self.behind, first) if self.behind else (before, self.last)))
        else:
            space = True
        self.text += " " * space

    def _open(self, word=""):
        """Writes the opening tags, and the punctuation that begins `word` before or behind them."""
        begun = ""
        for item in self.opened:
            prefix = item.around[0]
            if word.startswith(prefix) and prefix.startswith(begun):
                self.text += self.escape(prefix[len(begun) :])
                begun = prefix
            self.text += item.opening
        self.opened = []
        return begun

    def _release(self, count):
        """Writes so many characters of the punctuation that is held."""
        self.text += self.escape(self.held[:count])
        self.held = self.held[count:]


def _touches(source, target):
    """Whether an item touches the character `target`, as it touched `source` in the source.

    Where a comma of the source became a letter, there is a space between: "{name}," is "{name} y".
    """
    return not source.isspace() and source.isalpha() == target.isalpha()


def _pieces(root, words, targets):
    """Yields a method of `_Writer` and its argument, in the order of writing."""
    todo: list[tuple] = [(root, 0, len(words))]
    while todo:  # not by recursion: tags may be nested deeply
        piece = todo.pop()
        if len(piece) == 2:
            yield piece
            continue
        parent, begin, end = piece
        inside: list[tuple] = []
        for first, behind, number in _placed(parent, begin, end, targets):
            item = parent.items[number]
            inside += [(_Writer.write, word) for word in words[begin:first]]
            if item.closing:
                inside += [(_Writer.open, item), (item, first, behind), (_Writer.close, item)]
            else:
                inside.append((_Writer.alone, item))
            begin = behind
        inside += [(_Writer.write, word) for word in words[begin:end]]
        todo += reversed(inside)


def _placed(parent, begin, end, targets):
    """Places the items inside `parent`, which has the words [begin, end) of the translation.

    Returns (first word, word behind the last, number of the item) in the order of writing. Items
    with words do not overlap.
    """

    def linked(first, last):
        found = (target for word in range(first, last) for target in targets.get(word, ()))
        return sorted(target for target in found if begin <= target < end)

    taken: list[tuple[int, int, int]] = []  # in their order

    def where(target):
        """How many taken places begin at or before a word, and whether the last one holds it."""
        count = bisect.bisect(taken, target, key=lambda place: place[0])
        return count, count > 0 and target < taken[count - 1][1]

    wanted = {i: linked(item.first, item.last) for i, item in enumerate(parent.items)}
    alone = {i for i, found in wanted.items() if not found}
    # The shortest first, because it may lie inside a longer one, which then keeps one side.
    for number in sorted(wanted.keys() - alone, key=lambda i: wanted[i][-1] - wanted[i][0]):
        free = [target for target in wanted[number] if not where(target)[1]]
        sides = [list(side) for _, side in itertools.groupby(free, where)]
        if sides:
            best = max(sides, key=len)
            bisect.insort(taken, (best[0], best[-1] + 1, number))
        else:
            alone.add(number)
    found = list(taken)
    following = {parent.last: end}  # for each word of the source, where what precedes it goes
    for word in reversed(range(parent.first, parent.last if alone else 0)):
        following[word] = min(linked(word, word + 1), default=following[word + 1])
    for number in alone:
        place = following[parent.items[number].first]
        count, held = where(place)
        if held:  # by another item: it goes before that one, or behind it, as in the source
            first, behind, other = taken[count - 1]
            place = first if number < other else behind
        found.append((place, place, number))
    return sorted(found)
