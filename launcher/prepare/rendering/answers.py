"""Which characters of a written chat the assistant says, whatever its template.

What a message adds to a chat is found by writing the chat once more with that message replaced by a
mark: up to where the two texts part, and from where they agree again to the end, is the template's;
what lies between is the message's, whatever the template trims, adds or leaves out. Around it:

- The answer begins where a model that answers would begin: at the end of the prompt that the
  template writes for the messages before, if that is how the chat begins. So what opens an answer,
  such as `<think>`, is learnt exactly if the model has to say it.
- The special token that ends the turn belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from launcher.prepare.rendering.rendered import Span
from launcher.prepare.rendering.written import Chat
from launcher.prepare.shapes.sample import Message
from launcher.prepare.unusable import Unusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The characters of each of the assistant's messages, by its number in the chat."""

    spans: dict[int, Span]
    ended: bool
    """Whether the last of them, if it ends the chat, ends in a special token."""


def find_answers(chat: Chat, text: str, until: int | None = None) -> Answers:
    """What the assistant says in `text`, which is the chat as it is written; with `until`, what
    begins before that character, and the last. Raises `Unusable` when the template leaves an answer
    out, or writes it more than once."""
    numbers = [n for n, message in enumerate(chat.messages) if message["role"] == "assistant"]
    mark = next(c for c in map(chr, count(0xF0000)) if c not in text)  # of a private-use plane
    last = len(chat.messages) - 1
    at_once = _all_at_once(chat, text, numbers, mark)
    bodies: dict[int, Span] = {}
    begin = 0
    for number in numbers:
        # What opens an answer lies before its body, and behind the body before.
        if until is None or begin <= until or number == last:
            bodies[number] = at_once[number] if at_once else _body(chat, text, number, mark)
            begin = bodies[number][0]
    special = chat.tokenizer.special
    marks = [found.span() for found in special.finditer(text)] if special else []
    closing = _closing(chat, text, bodies.get(last), mark)
    spans: dict[int, Span] = {}
    for number, body in bodies.items():
        body = _snapped(marks, body)
        begin, end = _opened(chat, text, number, mark, body), body[1]
        if not _ends_special(marks, (begin, end)) and text.startswith(closing, end):
            end += len(closing)
        spans[number] = begin, end
    ended = last not in spans or _ends_special(marks, spans[last])
    if not ended:
        spans[last] = spans[last][0], len(text)
    return Answers(spans=spans, ended=ended)


def _all_at_once(
    chat: Chat, text: str, numbers: Sequence[int], mark: str
) -> dict[int, Span] | None:
    """The bodies of all answers from one more writing, where each message stands in the text as it
    is or without white space around it; None when some are written in another way."""
    marked = list(chat.messages)
    for number in numbers:
        marked[number] = _marked(f"{mark}{number}{mark}")
    try:
        written = chat.with_messages(marked).write()
    except Unusable:
        return None
    pieces = re.split(f"{mark}(\\d+){mark}", written)
    if [int(number) for number in pieces[1::2]] != list(numbers):
        return None
    if not text.startswith(pieces[0]):
        return None
    found: dict[int, Span] = {}
    place = len(pieces[0])
    for number, after in zip(numbers, pieces[2::2], strict=True):
        message = chat.messages[number]
        said = message["content"]
        if not isinstance(said, str) or {"tool_calls", "reasoning_content"} & set(message):
            return None
        for content in (said, said.strip()):
            if text.startswith(content + after, place):
                found[number] = place, place + len(content)
                place += len(content) + len(after)
                break
        else:
            return None
    return found if place == len(text) else None


def _marked(mark: str) -> Message:
    return {"role": "assistant", "content": mark}


def _body(chat: Chat, text: str, number: int, mark: str) -> Span:
    """What one message adds to the text."""
    messages = list(chat.messages)
    messages[number] = _marked(mark)
    try:
        written = chat.with_messages(messages).write()
    except Unusable:
        # Some templates take results of tools only after a call.
        if "tool_calls" not in chat.messages[number]:
            raise
        return _body_of_call(chat, text, number, mark)
    return _between(text, written, mark, number)


def _between(text: str, written: str, mark: str, number: int) -> Span:
    if written.count(mark) != 1:
        often = "leaves it out" if mark not in written else "writes it more than once"
        raise Unusable("chat template hides an answer", f"{often}: message {number}")
    begin = _alike(text, written)
    return begin, max(begin, len(text) - _alike(text[::-1], written[::-1]))


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def check_calls(chat: Chat, text: str) -> None:
    """Raises `Unusable` when the template leaves a call out of `text`, as those do that know no
    tools: what would be learnt is to say nothing. A call that is written is so by its name."""
    callers = [n for n, message in enumerate(chat.messages) if message.get("tool_calls")]
    if not callers:
        return
    word = next(word for word in (f"call{n}x" for n in count()) if word not in text)
    renamed = list(chat.messages)
    for number in callers:
        name = f"{word}{number}x"
        calls = renamed[number]["tool_calls"]
        calls = [{**call, "function": {**call["function"], "name": name}} for call in calls]
        renamed[number] = {**renamed[number], "tool_calls": calls}
    written = chat.with_messages(renamed).write()
    for number in callers:
        if f"{word}{number}x" not in written:
            told = f"leaves out what is called: message {number}"
            raise Unusable("chat template hides an answer", told)


def _body_of_call(chat: Chat, text: str, number: int, mark: str) -> Span:
    """What a call adds where it cannot be replaced by words alone.

    It begins where the text parts from one in which words stand in the place of the call, its
    results and the answer after them; it ends before the special token after what differs from a
    call of something else.
    """
    messages = chat.messages
    answer = next(
        (
            later
            for later in range(number + 1, len(messages))
            if messages[later]["role"] == "assistant" and "tool_calls" not in messages[later]
        ),
        len(messages) - 1,
    )
    shorter = [*messages[:number], _marked(mark), *messages[answer + 1 :]]
    begin, _ = _between(text, chat.with_messages(shorter).write(), mark, number)
    calls = [
        {**call, "function": {"name": mark, "arguments": {}}}
        for call in messages[number]["tool_calls"]
    ]
    other = [*messages]
    other[number] = {**messages[number], "tool_calls": calls}
    written = chat.with_messages(other).write()
    end = len(text) - _alike(text[::-1], written[::-1])
    special = chat.tokenizer.special
    after = special.search(text, max(begin, end)) if special else None
    return begin, after.start() if after else max(begin, end)


def _snapped(marks: Sequence[Span], body: Span) -> Span:
    """With the whole of a special token of which it has a part: two may begin or end alike, such as
    `<|eom_id|>` and `<|eot_id|>`."""
    begin, end = body
    for first, last in marks if begin < end else ():
        if first < begin < last:
            begin = first
        if first < end < last:
            end = last
    return begin, end


def _opened(chat: Chat, text: str, number: int, mark: str, body: Span) -> int:
    """Where the model would begin to answer: at the end of the prompt if the text begins with it.

    Otherwise, as where a template moves the system message to the last turn, after whatever this
    answer would have before it and behind its prompt if it were the last.
    """
    begin, end = body
    before = chat.messages[:number]
    try:
        prompt = chat.with_messages(before).write(prompt=True)
        if text.startswith(prompt) and len(prompt) <= end:
            return len(prompt)
        as_last = chat.with_messages([*before, _marked(mark)]).write()
    except Unusable:
        return begin
    opening = as_last[len(prompt) : as_last.find(mark)] if as_last.startswith(prompt) else ""
    return begin - len(opening) if text[:begin].endswith(opening) else begin


def _closing(chat: Chat, text: str, last: Span | None, mark: str) -> str:
    """What a template writes behind an answer in words, up to the special token that ends the turn,
    as it does behind the last one of a chat: so what opens a next turn is not taken for it. Empty
    where there is none. `last` is the body of the last message, if the assistant says it."""
    before = chat.messages if last is None else chat.messages[:-1]
    rest = text[last[1] :] if last is not None else ""
    if last is None or "tool_calls" in chat.messages[-1]:
        with suppress(Unusable):
            rest = chat.with_messages([*before, _marked(mark)]).write().partition(mark)[2]
    special = chat.tokenizer.special
    found = special.search(rest) if special else None
    return rest[: found.end()] if found else ""


def _ends_special(marks: Sequence[Span], span: Span) -> bool:
    """Whether the last that stands in a span is a special token."""
    return any(first >= span[0] and last == span[1] for first, last in marks)
