"""Lets a model call a tool, whole and in a stream, through the official SDK. Prints `OK` when the calls arrive as they must.

Usage: tools.py BASE_URL
"""

import json
import sys

from openai import OpenAI

TOOL = {
    "type": "function",
    "function": {
        "name": "find_flower",
        "parameters": {"type": "object", "properties": {"flower": {"type": "string"}}},
    },
}
ASKED = {"model": "tool-user", "messages": [{"role": "user", "content": "Where to?"}], "tools": [TOOL]}


def check(name: str, arguments: str) -> None:
    if (name, json.loads(arguments)) != ("find_flower", {"flower": "rose"}):
        sys.exit(f"another call: {name}({arguments})")


def main() -> None:
    client = OpenAI(base_url=sys.argv[1], api_key="unused", timeout=30, max_retries=0)
    call = client.chat.completions.create(**ASKED).choices[0].message.tool_calls[0]
    check(call.function.name, call.function.arguments)
    name, arguments = "", ""
    for chunk in client.chat.completions.create(**ASKED, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    check(name, arguments)
    print("OK")


if __name__ == "__main__":
    main()
