"""A model server that calls tools: each request becomes the argument of a call, byte for byte. Runs until it is killed.

What a small real model would do with tools is anybody's guess; what must be seen is that nobody on the way touches them.

Usage: tools.py ADDRESS PORT ID
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": sys.argv[3], "object": "model", "created": 0, "owned_by": "test"}]}
        self.answer(200 if self.path == "/v1/models" else 404, "application/json", json.dumps(models))

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        call = {"id": "call_1", "type": "function", "function": {"name": "echo", "arguments": asked}}
        if not json.loads(asked).get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            return self.answer(200, "application/json", self.completion("chat.completion", choice))
        half = len(asked) // 2
        first = dict(call, index=0, function=dict(call["function"], arguments=asked[:half]))
        second = {"index": 0, "function": {"arguments": asked[half:]}}
        choices = [
            {"index": 0, "delta": {"role": "assistant", "tool_calls": [first]}},
            {"index": 0, "delta": {"tool_calls": [second]}},
            {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
        ]
        events = [self.completion("chat.completion.chunk", choice) for choice in choices] + ["[DONE]"]
        self.answer(200, "text/event-stream", "".join(f"data: {event}\n\n" for event in events))

    def completion(self, kind: str, choice: dict) -> str:
        return json.dumps({"id": "1", "object": kind, "created": 0, "model": sys.argv[3], "choices": [choice]})

    def answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Model)
    print("listening", flush=True)
    server.serve_forever()
