"""Steps that write a text in another way, by examples in both languages."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest

from launcher.prepare.cleaning import clean
from launcher.prepare.cleaning.unicode_classes import by_plane, of_categories
from recipes.data import steps
from recipes.data.steps import CleaningStep

FAMILY = "👨\u200d👩\u200d👧"
SCOTLAND = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
PERSIAN = "می\u200cخواهم"
HINDI = "क्\u200dष"


def cleaned(text: str, step: CleaningStep) -> str:
    return clean(text, [step])


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("NFKC", "ＡＢ１２！，ﬁ㎏①", "AB12!,fikg1"),
        ("NFC", "ＡＢ，cafe\u0301", "ＡＢ，café"),
        ("width", "ＡＢ１２\u3000ａ＠ｂ．ｃ", "AB12 a@b.c"),
        ("width", "价格：１００％，好！（真的）？；～", "价格：100%，好！（真的）？；～"),
        ("width", "ｶﾞｷﾞﾌﾟ､｡ ﬁ①", "ガギプ、。 ﬁ①"),
        ("width", "plain，中文。", "plain，中文。"),
    ],
)
def test_forms_of_unicode(form: Any, text: str, expected: str):
    assert cleaned(text, steps.NormalizeUnicode(form=form)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa\x00b\u200bc\u202ed\u2066e\xadf\td\n", "abcdef\td\n"),
        ("a\r\nb\rc\x0bd\x0ce\x85f", "a\nb\nc\nd\ne\nf"),
        ("half \ud83d a \udc00character\ufffe", "half  a character"),
        ("中\u200d文 a\u200db 1\u200c2", "中文 ab 12"),
        (FAMILY, FAMILY),
        (SCOTLAND, SCOTLAND),
        (PERSIAN, PERSIAN),
        (HINDI, HINDI),
        ("❤\ufe0f\u200d🔥 👩🏽\u200d💻", "❤\ufe0f\u200d🔥 👩🏽\u200d💻"),
        # Tags that spell a hidden message stand behind no flag.
        ("hi\U000e0069\U000e0067\U000e007f", "hi"),
    ],
)
def test_what_nobody_sees(text: str, expected: str):
    assert cleaned(text, steps.StripControl()) == expected


def test_joiners_can_be_dropped_everywhere():
    drop = steps.StripControl(joiners="drop")
    assert cleaned(FAMILY + PERSIAN, drop) == (FAMILY + PERSIAN).replace("\u200d", "").replace(
        "\u200c", ""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>一</p><p>二</p>三", "一\n二\n三"),
        ("a<br>b<BR/>c<br />d", "a\nb\nc\nd"),
        ("<ul><li>一</li>\n<li>二</li></ul>", "一\n二\n"),
        ("<td>a</td><td>b</td>", " a  b "),
        ("好<b class='x > y'>的</b>！", "好的！"),
        ("1 < 2 and 3 > 2, a<b and c>d, x<3, i<=n", "1 < 2 and 3 > 2, a<b and c>d, x<3, i<=n"),
        ("List<String> <think>hm</think> <|im_end|>", "List<String> <think>hm</think> <|im_end|>"),
        ("a<script type='x'>if (1 < 2) alert('</p>')</SCRIPT >b", "ab"),
        ("a<script>var x = '<p>';</script>b<style>p {}</style>c", "abc"),
        ("what does <script> do?", "what does  do?"),
        ("a<!-- no <b>one</b> sees -->b<!-- open", "ab<!-- open"),
        ("<!DOCTYPE html><html><body>x</body></html>", "x\n"),
        ("&lt;b&gt; &amp;amp; &#20013;&#x6587; &hellip;", "<b> &amp; 中文 …"),
        ("a&nbsp;b AT&T x?a=1&copy=2&lt=3 &notaword;", "a\xa0b AT&T x?a=1&copy=2&lt=3 &notaword;"),
        ('<a href="https://x.cn/?a=1&b=2" target=_blank>链接</a>', "链接"),
        ("<", "<"),
        ("</", "</"),
        ("a <b", "a <b"),
        ("<p", "<p"),
    ],
)
def test_html(text: str, expected: str):
    assert cleaned(text, steps.StripHtml()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("见http://a.com/b?c=d很好", "见<url>很好"),
        ("(see https://en.wikipedia.org/wiki/A_(b)).", "(see <url>)."),
        ("参考：http://t.cn/x/），WWW.a.org。", "参考：<url>），<url>。"),
        ("ftp://a.b/c, http:// and httpd", "<url>, http:// and httpd"),
        ("hTTp://a wwW.b Www.c", "<url> <url> <url>"),
        ("不是网址 awww.x", "不是网址 awww.x"),
    ],
)
def test_urls_are_masked(text: str, expected: str):
    assert cleaned(text, steps.StripUrls(replacement="<url>")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("邮箱zhang.san@qq.com，谢谢", "邮箱\\1，谢谢"),
        ("a.b+c@mail.example.co.uk.", "\\1."),
        ("@someone a@b 3@4.5 x@y.z", "@someone a@b 3@4.5 x@y.z"),
    ],
)
def test_emails_are_masked_by_what_is_said_and_no_template(text: str, expected: str):
    assert cleaned(text, steps.StripEmails(replacement="\\1")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("电话13812345678，或+86 138-1234-5678。", "电话#，或#。"),
        ("010-51236699 0791-2878108 (021) 12345678", "# # #"),
        ("拨打4008206666！400-820-6666", "拨打#！#"),
        ("call (212) 555-0123 or 1-212-555-0123, +44 20 7946 0958", "call # or #, #"),
        (
            "订单1442083355，2008-06-04 9:30，10.5 +1 100-200",
            "订单1442083355，2008-06-04 9:30，10.5 +1 100-200",
        ),
        ("身份证 110101199003071234", "身份证 110101199003071234"),
    ],
)
def test_phones_are_masked(text: str, expected: str):
    assert cleaned(text, steps.StripPhones(replacement="#")) == expected


def by_chance(count: int) -> Iterator[str]:
    """Texts of characters of all categories, next to each other and to themselves."""
    chance = random.Random(5)
    anywhere = [
        chr(code)
        for first, last in ((0, 0x10000), (0x10000, 0x20000), (0xE0000, 0xE0200))
        for code in chance.sample(range(first, last), 400)
    ]
    frequent = (
        "，！？：（）；…。.-_+^`~\u0301\u3099かe的x \t\n\r\x0b\x00\xad\u200d\ufeff𐄀𛲟𞻰\U000e0001"
    )
    for _ in range(count):
        alphabet = chance.sample(anywhere, 4) + chance.choices(frequent, k=4)
        yield "".join(chance.choice(alphabet) * chance.choice((1, 1, 1, 2, 4)) for _ in range(12))


def test_what_is_done_fast_is_what_unicode_says():
    """Most texts are only looked through, in classes of which each is of one plane."""
    for text in by_chance(3000):
        nfkc = unicodedata.normalize("NFKC", text)
        assert cleaned(text, steps.NormalizeUnicode()) == nfkc
        bare = "".join(letter for letter in text if unicodedata.category(letter)[0] != "P")
        assert cleaned(text, steps.RemovePunctuation()) == bare
        short = "".join(
            letter * (min(3, length) if is_mark(letter) else length)
            for letter, length in ((key, len(list(run))) for key, run in groupby(text))
        )
        assert cleaned(text, steps.CollapsePunctuation()) == short
        lines = re.sub("\r\n|[\r\x0b\x0c\x85]", "\n", text)
        seen = "".join(letter for letter in lines if letter in "\t\n" or not is_unseen(letter))
        assert cleaned(text, steps.StripControl(joiners="drop")) == seen


def is_mark(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category[0] == "P" or category in ("Sm", "Sk")


def is_unseen(letter: str) -> bool:
    is_none = "\ufdd0" <= letter <= "\ufdef" or letter in "\ufffe\uffff"
    return is_none or unicodedata.category(letter) in ("Cc", "Cf", "Cs")


def test_classes_of_characters_are_those_of_unicode():
    letters = [chr(code) for code in range(0x20000)]
    for wanted in (("P",), ("P", "Sm", "Sk"), ("Cc", "Cf", "Cs")):
        expected = [letter for letter in letters if unicodedata.category(letter).startswith(wanted)]
        assert re.findall(f"[{of_categories(*wanted)}]", "".join(letters)) == expected
        basic, above = by_plane(*wanted)
        assert (
            re.findall(f"[{basic}]", "".join(letters)) + re.findall(f"[{above}]", "".join(letters))
            == expected
        )


def test_punctuation():
    three, one = steps.CollapsePunctuation(), steps.CollapsePunctuation(longest=1)
    assert (
        cleaned("好！！！！！真的。。。。~~~~~ wait.... ……", three)
        == "好！！！真的。。。~~~ wait... ……"
    )
    assert cleaned("好！！！??哈哈哈哈😀😀😀😀 100000", one) == "好！?哈哈哈哈😀😀😀😀 100000"
    assert (
        cleaned("it's 好，不好？(a-b)「c」 $5 +1…", steps.RemovePunctuation())
        == "its 好不好abc $5 +1"
    )


def test_white_space():
    text = " a \t b\u3000\xa0c \r\n\n \n\n d\u2028e \n"
    assert cleaned(text, steps.CollapseWhitespace()) == "a b c d e"
    assert cleaned(text, steps.CollapseWhitespace(lines="keep")) == "a b c\n\nd\ne"


@pytest.mark.parametrize(
    ("variant", "text", "expected"),
    [
        ("t2s", "乾燥的頭髮，皇后在後面", "干燥的头发，皇后在后面"),
        ("t2s", "软件已经是简体 abc 😀", "软件已经是简体 abc 😀"),
        ("tw2sp", "這個軟體的滑鼠", "这个软件的鼠标"),
        ("t2s", "漢\ud800字\udfff", "汉\ud800字\udfff"),
        ("t2s", "漢\x00字", "汉\x00字"),
    ],
)
def test_simplified_chinese(variant: Any, text: str, expected: str):
    assert cleaned(text, steps.SimplifyChinese(variant=variant)) == expected


def test_a_pattern_of_the_users_own():
    step = steps.Replace(pattern=r"(\d+)\s*元", replacement=r"¥\1")
    assert cleaned("只要 100 元", step) == "只要 ¥100"


ODD = [
    "",
    " ",
    "\n",
    "\x00",
    "😀",
    FAMILY,
    "\ud800",
    "a" * 20_000,
    "的" * 1500,
    "<" * 5000,
    "中 a\n1！",
]
TWICE_IS_ONCE: list[CleaningStep] = [
    *(steps.NormalizeUnicode(form=form) for form in ("NFKC", "NFC", "width")),  # type: ignore[arg-type]
    steps.SimplifyChinese(),
    steps.StripControl(),
    steps.StripUrls(),
    steps.StripEmails(),
    steps.StripPhones(),
    steps.CollapsePunctuation(),
    steps.CollapseWhitespace(),
    steps.CollapseWhitespace(lines="keep"),
    steps.RemovePunctuation(),
    steps.StopWords(languages=["zh", "en"]),
    steps.Segment(),
]


@pytest.mark.parametrize("step", TWICE_IS_ONCE, ids=lambda step: str(step.plain()))
def test_any_text_is_taken_and_what_is_clean_stays(step: CleaningStep):
    mixed = "<p>Ｈello，世界！！！！ 見 http://a.cn 或 a@b.cn 13812345678\r\n  café</p>"
    for text in [*ODD, mixed]:
        once = clean(text, [step])
        assert clean(once, [step]) == once


def test_python_knows_the_characters_that_the_steps_are_made_of():
    """Every character of Unicode against its category, for the classes written as ranges."""
    every = [chr(code) for code in range(0x110000)]
    left = cleaned("".join(every), steps.RemovePunctuation())
    assert left == "".join(c for c in every if unicodedata.category(c)[0] != "P")
    left = cleaned("".join(every), steps.StripControl(joiners="drop"))
    assert {unicodedata.category(c) for c in left if c not in "\t\n"}.isdisjoint({"Cc", "Cf", "Cs"})
