"""jieba's exact mode in a quarter of its time: the same words from the same dictionary.

jieba looks every candidate up twice, takes a logarithm each time, and asks for words at every place
of an English text. Here the scores of words are computed once; ASCII in which no word of the
dictionary begins is cut by a regular expression; the best way through all the rest of a text is
found in one go, while its words are looked up; and what the Markov model makes of a run of single
characters is remembered, since the same runs come again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice, repeat

from launcher.prepare.cleaning.markov import model_cutter
from launcher.prepare.cleaning.scored_words import NO_WORD, Character, Pair, ScoredWords

_RUNS_REMEMBERED = 2**15  # about 10 MB

_HAN = r"\u4e00-\u9fd5"
_ASCII = r"a-zA-Z0-9+#&._%\-"
# jieba finds words within runs of these, which are blocks here (jieba.re_han_default).
_BLOCK = re.compile(rf"[{_HAN}{_ASCII}]++|\S")
_NO_BLOCK = re.compile(rf"[^{_HAN}{_ASCII}]")
_AT_ONCE = 10_000
"""Characters of a text, and what is left of a block: each takes some 150 bytes while it is cut."""

_BETWEEN = "\n"
"""What stands between blocks: it is in none, and in no word."""

Run = Callable[[str], Sequence[str]]
"""Cuts two or more characters, each of which is best taken alone, into words."""


def exact_cutter(words: ScoredWords, hmm: bool) -> Callable[[str], list[str]]:
    """A function that gives the words of `jieba.Tokenizer.cut(text, HMM=hmm)` but white space."""
    find_blocks = _BLOCK.findall
    find_pieces = _pieces(hmm).findall
    begins_ascii_word = _ascii_pairs(words).search
    take_ways = _best_ways(words)
    cut_run = _by_model(words) if hmm else re.compile("[a-zA-Z0-9]+|.").findall

    def cut_part(text: str) -> list[str]:
        blocks: list[str]
        if begins_ascii_word(text) is None:
            pieces = find_pieces(text)
            if text.isascii():
                return pieces
            blocks = [piece for piece in pieces if len(piece) > 1 and not piece.isascii()]
        else:
            pieces, blocks = [], []
            for block in find_blocks(text):
                if block.isascii() and begins_ascii_word(block) is None:
                    pieces += find_pieces(block)
                    continue
                pieces.append(block)
                if len(block) > 1:
                    blocks.append(block)
        return _fill_in(pieces, blocks, take_ways, cut_run) if blocks else pieces

    def cut(text: str) -> list[str]:
        if len(text) <= _AT_ONCE:
            return cut_part(text)
        found: list[str] = []
        begin = 0
        while begin < len(text):
            outside = _NO_BLOCK.search(text, begin + _AT_ONCE)
            end = len(text) if outside is None else outside.start()
            found += cut_part(text[begin:end])
            begin = end
        return found

    return cut


def _pieces(hmm: bool) -> re.Pattern[str]:
    """Blocks that hold a Chinese character; words of the other blocks, if the dictionary has none
    in them; and characters outside of blocks."""
    # jieba.finalseg.re_skip and what stands between its matches; or letters together.
    ascii_word = r"[a-zA-Z0-9]++(?:\.[0-9]++)?+%?+|[+#&._%\-]++" if hmm else "[a-zA-Z0-9]++"
    return re.compile(rf"(?<![{_ASCII}])[{_ASCII}]*+[{_HAN}][{_HAN}{_ASCII}]*+|{ascii_word}|\S")


def _ascii_pairs(words: ScoredWords) -> re.Pattern[str]:
    """Two ASCII characters with which a word begins."""
    ways = [
        re.escape(first) + f"[{re.escape(seconds)}]"
        for first, seconds in words.ascii_pairs().items()
    ]
    return re.compile("|".join(ways) or "(?!)")


def _fill_in(
    pieces: list[str], blocks: list[str], take_ways: Callable[[str], list[int]], cut_run: Run
) -> list[str]:
    """The pieces with the words of each block, which is one of them, in its place."""
    text = _BETWEEN.join((*blocks, ""))
    ways = take_ways(text)
    found: list[str] = []
    add = found.append
    coming = iter(blocks)
    block = next(coming)
    end = -1
    for piece in pieces:
        if piece is not block:
            add(piece)
            continue
        place = end + 1
        end = place + len(block)
        while place < end:
            way = ways[place]
            if way > 0:
                begin, place = place, place + way
                add(text[begin:place])
            elif way == -1:
                add(text[place])
                place += 1
            else:
                begin, place = place, place - way
                found += cut_run(text[begin:place])
        block = next(coming, "")
    return found


def _best_ways(words: ScoredWords) -> Callable[[str], list[int]]:
    """A function that says of each place in a text how many characters the word has that begins
    there on the likeliest way from it to the end of the block; or of how many single characters a
    run has that begins there, below 0. Behind each block there is a line end.

    Of two ways alike it is the one with the longer word. As in jieba, values are added from the end
    of a block to its beginning, so that they are the same to the last bit.
    """
    none: dict[str, Pair] = {}
    characters = {**words.characters, _BETWEEN: (_BETWEEN, None, none)}
    get_character, get_frequency, scores = characters.get, words.frequencies.get, words.scores
    get_pair: Callable[[dict[str, Pair], str], Pair | None] = dict.get
    unknown = words.unknown
    unknown_character: Character = ("", None, none)

    def take_ways(text: str) -> list[int]:
        # From the last one to the first.
        found = map(get_character, reversed(text), repeat(unknown_character))
        letters, singles, rows = zip(*found, strict=True)
        pairs = [None, *map(get_pair, islice(rows, 1, None), letters)]
        place = len(text)
        values = [0.0] * (place + 1)  # of the best way from each place on
        ways = [0] * place
        value = 0.0
        run = 0
        for single, pair in zip(singles, pairs, strict=True):
            place -= 1
            if pair is None:
                if single is not None:
                    value += single
                    run -= 1
                elif text[place] != _BETWEEN:
                    value += unknown
                    run -= 1
                else:
                    value = 0.0
                    run = 0
                values[place] = value
                ways[place] = run
                continue
            alone = value
            best = NO_WORD if single is None else single + alone
            way = 1
            score, thirds = pair
            value = score + values[place + 2]
            if value >= best:
                best, way = value, 2
            if thirds is not None and text[place + 2] in thirds:
                end = place + 3
                frequency = get_frequency(text[place:end])
                while frequency is not None:
                    value = scores[frequency] + values[end]
                    if value >= best:
                        best, way = value, end - place
                    end += 1
                    frequency = get_frequency(text[place:end])
            if way > 1 and best != NO_WORD:
                run = 0
            else:
                run = way = run - 1
                if best == NO_WORD:
                    best = unknown + alone
            values[place] = value = best
            ways[place] = way
        return ways

    return take_ways


def _by_model(words: ScoredWords) -> Run:
    """jieba's for its Markov model: what is a word is taken apart, as it was no better whole."""
    cut_chinese = model_cutter()
    get_frequency = words.frequencies.get
    is_chinese = re.compile(rf"[{_HAN}]+").fullmatch
    find_parts = re.compile(rf"[{_HAN}]+|[a-zA-Z0-9]+(?:\.[0-9]+)?%?|[+#&._%\-]+").findall

    @lru_cache(maxsize=_RUNS_REMEMBERED)
    def cut(run: str) -> tuple[str, ...]:
        if get_frequency(run):
            return tuple(run)
        if is_chinese(run):
            return tuple(cut_chinese(run))
        found: list[str] = []
        for part in find_parts(run):
            found += cut_chinese(part) if is_chinese(part) else (part,)
        return tuple(found)

    return cut
