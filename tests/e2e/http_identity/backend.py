"""An HTTP server that tells its clients what it knows of them, and calls the tool that a chat offers.

Listens on 127.0.0.1, prints `listening`, and then a line of JSON for each request: path and headers, names in lower case. The
answer to a GET is that line.

Usage: backend.py PORT
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = {"id": "tool-user", "object": "model", "owned_by": "nobody"}


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        seen = self.tell()
        self.answer({"object": "list", "data": [MODEL]} if self.path == "/v1/models" else seen)

    def do_POST(self) -> None:
        self.tell()
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["tools"][0]["function"]["name"]
        call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": '{"flower": "rose"}'}}
        if asked.get("stream"):
            self.stream(call)
        else:
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
            self.answer({**self.envelope("chat.completion"), "choices": [choice], "usage": usage})

    def stream(self, call: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        name = {**call["function"], "arguments": ""}
        deltas = [{"role": "assistant", "tool_calls": [{"index": 0, **call, "function": name}]}]
        for sign in call["function"]["arguments"]:
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": sign}}]})
        for delta in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            event = {**self.envelope("chat.completion.chunk"), "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def envelope(self, kind: str) -> dict:
        return {"id": "1", "object": kind, "created": 1, "model": MODEL["id"]}

    def answer(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tell(self) -> dict:
        seen = {"path": self.path, "headers": [[name.lower(), value] for name, value in self.headers.items()]}
        print(json.dumps(seen), flush=True)
        return seen

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
