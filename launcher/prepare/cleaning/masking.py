"""Addresses and numbers that point to a place or a person: taken out, or masked."""

from __future__ import annotations

import re
from collections.abc import Callable

from recipes.data import steps

# Chinese is written without spaces, so an address ends where other than ASCII begins. A bracket
# belongs to it if it opens there, as in wiki/A_(b).
_IN_URL = r"[A-Za-z0-9\-._~:/?#@!$&'*+,;=%|]"
_URL = re.compile(
    rf"(?:\bhttps?://|\bftp://|\bwww\.)(?P<rest>(?:{_IN_URL}++|\({_IN_URL}*+\))++)",
    re.IGNORECASE | re.ASCII,
)
_END_OF_SENTENCE = ".,:;!?'*"
# Looked for from the first character of a name only: from each it would take quadratic time.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+][A-Za-z0-9._%+-]{0,63}+@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_PHONE = re.compile(
    r"""(?<![\w.+-])(?:
    (?:\+|00)86[ -]?1[3-9]\d[ -]?\d{4}[ -]?\d{4}      # China, mobile, from abroad
    |1[3-9]\d[ -]?\d{4}[ -]?\d{4}                     # China, mobile
    |(?:(?:\+|00)86[ -]?|\(?0)\d{2,3}\)?[ -]\d{7,8}   # China, fixed line with its area
    |400[ -]?\d{3}[ -]?\d{4}                          # China, of a company
    |\+(?=(?:\d[ .()-]{0,2}){8,15}(?!\d))            # any country, 8 to 15 digits
     \d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}
    |(?:\+?1[ .-]?)?\(\d{3}\)[ ]?\d{3}[.-]\d{4}       # North America
    |(?:\+?1[ .-])?\d{3}[.-]\d{3}[.-]\d{4}
    )(?![\w-]|\.\d)""",
    re.VERBOSE | re.ASCII,
)


def strip_urls(step: steps.StripUrls) -> Callable[[str], str]:
    def mask(found: re.Match[str]) -> str:
        bare = found["rest"].rstrip(_END_OF_SENTENCE)
        end = found["rest"][len(bare) :]
        return step.replacement + end if bare else found[0]

    def strip(text: str) -> str:
        # One of these is in every address; to look for them takes a fifth of the time.
        may_have_one = "://" in text or "w." in text or "W." in text
        return _URL.sub(mask, text) if may_have_one else text

    return strip


def strip_emails(step: steps.StripEmails) -> Callable[[str], str]:
    return lambda text: _EMAIL.sub(lambda _: step.replacement, text) if "@" in text else text


def strip_phones(step: steps.StripPhones) -> Callable[[str], str]:
    return lambda text: _PHONE.sub(lambda _: step.replacement, text)
