"""Tools that an assistant can call, and its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.prepare.shapes.columns import plain_json
from launcher.prepare.unusable import Unusable


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """Tools as JSON schemas of functions, from a list or the JSON of one; None when there are none.

    A bare `{name, description, parameters}` is taken for a function. Raises `Unusable`.
    """
    if value is None or value in ("", [], "[]"):
        return None
    tools = plain_json(value, "bad tools", "the list of tools")
    if not isinstance(tools, list):
        raise Unusable("bad tools", f"a {type(tools).__name__} where a list was expected")
    return [_tool(number, tool) for number, tool in enumerate(tools)]


def _tool(number: int, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise Unusable("bad tools", f"tool {number} is {type(tool).__name__}")
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable("bad tools", f"tool {number} has no name")
    return {"type": "function", "function": function}


def calls_of(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The calls of a message: `tool_calls`, or the one `function_call` of older chats. Arguments
    come as an object, which is what templates expect, or as the JSON of one. Raises `Unusable`."""
    calls = message.get("tool_calls")
    if calls in (None, [], ""):
        calls = [message["function_call"]] if message.get("function_call") else []
    calls = plain_json(calls, "bad tool call", where)
    if not isinstance(calls, list):
        raise Unusable("bad tool call", f"{where} has {type(calls).__name__} tool_calls")
    return [_call(call, where) for call in calls]


def calls_said(value: Any, where: str) -> list[dict[str, Any]]:
    """The calls that a turn of ShareGPT's `function_call` holds: JSON of one or of several."""
    calls = plain_json(value, "bad tool call", where)
    return [_call(call, where) for call in (calls if isinstance(calls, list) else [calls])]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable("bad tool call", f"{where} calls something without a name")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = plain_json(arguments or "{}", "bad tool call", f"{where}: arguments")
    if not isinstance(arguments, dict | None):
        raise Unusable("bad tool call", f"{where} has {type(arguments).__name__} arguments")
    made: dict[str, Any] = {"type": "function"}
    if isinstance(call.get("id"), str):
        made["id"] = call["id"]
    return made | {"function": {"name": function["name"], "arguments": arguments or {}}}
