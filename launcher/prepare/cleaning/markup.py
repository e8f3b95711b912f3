"""HTML taken out of a text that may hold some, or none.

Neither a parser of documents nor Python's `html.parser`: the first would take `List<String>` and
`<think>` for tags, as HTML does, and the second takes time with the square of the length on text
such as `<a <a <a …` (6 s for 24 KB). Here every scan ends at the next `<`, or remembers that there
is no end.
"""

from __future__ import annotations

import html
import html.entities
import re
from collections.abc import Callable, Iterator

from recipes.data import steps

_BLOCK_NAMES = """
    address article aside blockquote body br center dd details dialog dir div dl dt fieldset
    figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li
    main menu nav ol optgroup option p pre search section summary table tbody tfoot thead title tr
    ul
"""
_INLINE_NAMES = """
    a abbr acronym applet area audio b base basefont bdi bdo big blink button canvas caption cite
    code col colgroup data datalist del dfn em embed font frame i iframe img input ins kbd label
    link map mark marquee meta meter nobr noembed noframes noscript object output param picture
    progress q rp rt ruby s samp select slot small source span strike strong sub sup svg td
    textarea th time track tt u var video wbr path g rect circle math
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_INLINE = frozenset(_INLINE_NAMES.split())
_DROPPED = frozenset(("script", "style", "template"))
"""Elements whose content no reader sees."""

_CELLS = frozenset(("td", "th"))

# Possessive, so that a failure costs one look at each character up to the next `<`.
_TAG = re.compile(
    r"""<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9:-]*+)
    (?P<attributes>(?:[\s/]++|[^\s"'<>/=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'<>]++))?+)*+)>""",
    re.VERBOSE,
)
_DECLARATION = re.compile(r"<!(?:doctype|\[CDATA\[)[^<>]*+>|<\?xml[^<>]*+>", re.IGNORECASE)
# Of entities without a semicolon only those that old pages are full of, and not within an address.
_ENTITY = re.compile(
    r"&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
    r"|&(?:nbsp|amp|lt|gt|quot)(?![A-Za-z0-9=;])"
)


def strip_html(step: steps.StripHtml) -> Callable[[str], str]:
    return _strip


def _strip(text: str) -> str:
    if "<" in text:
        text = "".join(_without_tags(text))
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    return text


def _character(entity: re.Match[str]) -> str:
    # html.unescape takes the beginning of an unknown name, and makes ¬aword; of &notaword;
    is_known = entity[0][1] == "#" or entity[0][1:].rstrip(";") + ";" in html.entities.html5
    return html.unescape(entity[0]) if is_known else entity[0]


def _without_tags(text: str) -> Iterator[str]:
    """The pieces of a text between its tags, and a line end for each border of a block."""
    ends = _Ends(text)
    done = begin = 0
    at_line_start = True  # no line end is made where there is one
    while (begin := text.find("<", begin)) >= 0:
        end, between = _markup(text, begin, ends)
        if end == begin:
            begin += 1
            continue
        piece = text[done:begin]
        # The white space between two blocks is the file's, not the text's.
        if piece and not (at_line_start and piece.isspace()):
            yield piece
            at_line_start = piece.endswith("\n")
        if between == "\n" and at_line_start:
            between = ""
        if between:
            yield between
            at_line_start = between == "\n"
        done = begin = end
    yield text[done:]


def _markup(text: str, begin: int, ends: _Ends) -> tuple[int, str]:
    """Where the markup that begins at a `<` ends, and what stands in its place.

    It ends where it begins when it is none.
    """
    if text.startswith("<!--", begin):
        end = ends.after("-->", begin + 4)
        return (end, "") if end >= 0 else (begin, "")
    tag = _TAG.match(text, begin)
    if tag is None:
        declaration = _DECLARATION.match(text, begin)
        return (declaration.end() if declaration else begin), ""
    name = tag["name"].lower()
    if name in _DROPPED:
        end = -1 if tag["end"] else ends.after(f"</{name}", tag.end())
        end = ends.after(">", end) if end >= 0 else end
        # One that is never closed may be talk about it: only the tag goes.
        return (end if end >= 0 else tag.end()), ""
    if name in _BLOCKS:
        return tag.end(), "\n"
    if name not in _INLINE or _is_comparison(name, tag["attributes"]):
        return begin, ""
    return tag.end(), " " if name in _CELLS else ""


def _is_comparison(name: str, attributes: str) -> bool:
    """Whether `<b and c>` is what is left of `a<b and c>d`: no attribute has a value."""
    return len(name) == 1 and bool(attributes.strip(" \t\r\n/")) and "=" not in attributes


class _Ends:
    """Finds ends of comments and scripts; one that is not there is looked for once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lower = ""
        self._missing: set[str] = set()

    def after(self, mark: str, begin: int) -> int:
        """The position behind the next `mark` from `begin` on; -1 if there is none."""
        if mark in self._missing:
            return -1
        # Lower case keeps positions for ASCII only, which is all that a mark has.
        if not self._lower:
            self._lower = self._text.translate(_LOWER)
        found = self._lower.find(mark, begin)
        if found < 0:
            self._missing.add(mark)
            return -1
        return found + len(mark)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
