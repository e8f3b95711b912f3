"""Words: jieba's for Chinese, whole ones for what is written with spaces; and stop words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from launcher.prepare.cleaning.exact_words import exact_cutter
from launcher.prepare.cleaning.scored_words import ScoredWords, jieba_frequencies, score_words
from launcher.prepare.cleaning.unicode_classes import ABOVE_BASIC, HAN, by_plane, of_categories
from recipes.data import steps
from recipes.errors import DataError

_LONGEST_RUN = 1000
"""Characters without white space or punctuation that jieba is given at once: its Markov model takes
time with the square of them, 0.7 s for 16,000."""

# What jieba takes for the inside of words (jieba.re_han_default).
_JIEBA = r"\u4e00-\u9fd5a-zA-Z0-9+#&._%\-"
_LONG_RUN = re.compile(rf"(?<![{_JIEBA}])[{_JIEBA}]{{{_LONGEST_RUN + 1},}}+")
# Texts of nothing but ASCII, Chinese and its punctuation: no word of them must be kept whole.
_PLAIN = re.compile(
    rf"[\x00-\x7f{HAN}\u2010-\u2027\u3000-\u3003\u3008-\u301f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64]*+"
)
_DICTIONARY_LINE = re.compile(r"(?P<word>.+?)(?: (?P<frequency>[0-9]+))?(?: [a-z]+)?")


def segment(step: steps.Segment) -> Callable[[str], str]:
    cut = cutter(step.mode, step.dictionary, step.hmm)
    drop = re.compile(rf"[{of_categories('P')}]+") if step.punctuation == "drop" else None

    def cut_line(line: str) -> str:
        words: Iterable[str] = cut(line)
        if drop is not None:
            words = (word for word in words if not drop.fullmatch(word))
        return step.separator.join(words)

    return lambda text: "\n".join(map(cut_line, text.split("\n")))


@cache
def cutter(mode: str, dictionary: str | None, hmm: bool) -> Callable[[str], list[str]]:
    """A function from a text to its words as jieba cuts them, without white space.

    jieba would cut `café`, `привет` and a family emoji into single characters; here they are
    whole. Raises `DataError` for a dictionary that cannot be read.
    """
    cut_piece = _piece_cutter(mode, dictionary, hmm)
    whole, may_hold_whole = _whole(), _may_hold_whole()

    def cut_bounded(piece: str) -> list[str]:
        if len(piece) <= _LONGEST_RUN:
            return cut_piece(piece)
        words: list[str] = []
        begin = 0
        for run in _LONG_RUN.finditer(piece):
            for end in range(run.start(), run.end(), _LONGEST_RUN):
                words += cut_piece(piece[begin:end])
                begin = end
        return words + cut_piece(piece[begin:])

    def cut(text: str) -> list[str]:
        if _PLAIN.fullmatch(text) or not may_hold_whole(text):
            return cut_bounded(text)
        words: list[str] = []
        begin = 0
        for found in whole.finditer(text):
            words += cut_bounded(text[begin : found.start()])
            words.append(found[0])
            begin = found.end()
        return words + cut_bounded(text[begin:])

    return cut


def _piece_cutter(mode: str, dictionary: str | None, hmm: bool) -> Callable[[str], list[str]]:
    """The words of jieba, by itself or faster; none is white space."""
    if mode == "exact":
        return exact_cutter(_scored(dictionary), hmm)
    tokenizer = _tokenizer(dictionary)
    if mode == "search":
        cut = partial(tokenizer.cut_for_search, HMM=hmm)
    else:
        cut = partial(tokenizer.cut, cut_all=True, HMM=hmm)
    return lambda piece: [word for word in cut(piece) if word and not word.isspace()]


@cache
def _scored(dictionary: str | None) -> ScoredWords:
    if dictionary is None:
        return score_words(*jieba_frequencies())
    tokenizer = _load(dictionary)
    return score_words(tokenizer.FREQ, tokenizer.total)


@cache
def _whole() -> re.Pattern[str]:
    """Words with letters that are neither Chinese nor ASCII, and characters made of several."""
    letter = rf"[^\W_{HAN}]|[{of_categories('M')}]"
    extends = rf"[{of_categories('M')}\u200c\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]|\u200d\S"
    return re.compile(
        rf"(?<![^\W_{HAN}])[a-zA-Z0-9]*+(?=[^\W_{HAN}a-zA-Z0-9]|[{of_categories('M')}])(?:{letter})++"
        rf"|\S(?:{extends})++"
    )


@cache
def _may_hold_whole() -> Callable[[str], bool]:
    """Whether a text has one of the characters that make a whole word; it is said in a
    twentieth of the time that looking for the words takes, and most texts with emoji have none."""
    basic, above = by_plane("M")
    find_letter = re.compile(rf"[^\W_{HAN}a-zA-Z0-9]").search
    find_mark = re.compile(rf"[{basic}\u200c\u200d]").search
    find_above = re.compile(
        rf"[{ABOVE_BASIC}](?<=[{above}\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f])"
    ).search
    return lambda text: bool(find_letter(text) or find_mark(text) or find_above(text))


@cache
def _tokenizer(dictionary: str | None) -> Any:
    return _load(dictionary)


def _load(dictionary: str | None) -> Any:
    """jieba with its own words and those of a file, apart from every other one in the process.

    jieba keeps its dictionary as a file in the common temporary folder, which any user of the
    machine may have written. Reading that takes as long as building it anew (0.4 s), so it is not
    used.
    """
    import jieba

    jieba.setLogLevel(logging.WARNING)
    added = read_dictionary(dictionary) if dictionary is not None else []
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    for word, frequency in added:
        tokenizer.add_word(word, frequency)
    return tokenizer


def read_dictionary(file: str) -> list[tuple[str, int | None]]:
    """The words of a user dictionary and their frequencies. Raises `DataError`."""
    found: list[tuple[str, int | None]] = []
    for number, line in enumerate(_lines(file), start=1):
        if not line:
            continue
        entry = _DICTIONARY_LINE.fullmatch(line)
        assert entry is not None  # any text is a word
        frequency = None if entry["frequency"] is None else int(entry["frequency"])
        if frequency == 0:
            # jieba would remember it for all dictionaries of the process.
            raise DataError(
                f"{file}:{number}: {line!r} has the frequency 0, which takes a word away; "
                "only words to add can be given. Take the line out"
            )
        found.append((entry["word"], frequency))
    return found


def stop_words(step: steps.StopWords) -> Callable[[str], str]:
    words = _stop_list(step)
    if step.words == "spaces":
        return lambda text: "\n".join(
            " ".join(word for word in line.split() if word.lower() not in words)
            for line in text.split("\n")
        )
    cut = cutter("exact", None, True)
    chunk = re.compile(rf"[{HAN}]+|[^\W{HAN}]+(?:['’][^\W{HAN}]+)*")

    def without(found: re.Match[str]) -> str:
        chunk_text = found[0]
        if chunk_text.lower() in words:
            return _DROPPED
        if not _IS_HAN.match(chunk_text):
            return chunk_text
        return "".join(_DROPPED if word in words else word for word in cut(chunk_text))

    def drop(text: str) -> str:
        return _close(chunk.sub(without, text.replace(_DROPPED, "")))

    return drop


_DROPPED = "\ufffe"  # no character, so that no text has it
_IS_HAN = re.compile(rf"[{HAN}]")
_GAP = re.compile(rf"(?P<before>[^\S\n]?)(?:{_DROPPED}(?P<between>[^\S\n]?))+")


def _close(text: str) -> str:
    """The text without the marks of dropped words: one of the spaces around them is left."""

    def gap(found: re.Match[str]) -> str:
        at_start = found.start() == 0 or text[found.start() - 1] == "\n"
        at_end = found.end() == len(text) or text[found.end()] == "\n"
        if at_start or at_end:
            return ""
        # What touched the word, a comma or a bracket, now touches its neighbour.
        return found["before"] if found["between"] else ""

    return _GAP.sub(gap, text)


def _stop_list(step: steps.StopWords) -> frozenset[str]:
    import stopwordsiso

    words = {word.lower() for word in stopwordsiso.stopwords(step.languages)}
    if step.file is not None:
        words.update(line.lower() for line in _lines(step.file))
    return frozenset(words - {""})


def _lines(file: str) -> list[str]:
    """The lines of a file without white space at their ends. Raises `DataError`."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read as a list of words: {error}. It must be UTF-8, and lie where "
            "all nodes see it"
        ) from error
    return [line.strip() for line in text.splitlines()]
