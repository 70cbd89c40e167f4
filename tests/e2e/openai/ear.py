"""A model server that hears: it answers a transcription with what it was sent. Runs until it is killed.

It reads forms with Python's own parser, which knows nothing of ours.

Usage: ear.py ADDRESS PORT ID
"""

import hashlib
import json
import sys
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Ear(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": sys.argv[3], "object": "model", "created": 0, "owned_by": "test"}]}
        self.answer(200 if self.path == "/v1/models" else 404, models)

    def do_POST(self) -> None:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + self.rfile.read(int(self.headers["Content-Length"])))
        fields = {self.name(part): part.get_payload(decode=True) for part in form.iter_parts()}
        heard = {"fields": list(fields), "sha256": hashlib.sha256(fields["file"]).hexdigest()}
        heard["model"] = fields["model"].decode()
        usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
        self.answer(200, {"text": json.dumps(heard), "usage": usage})

    @staticmethod
    def name(part: Message) -> str:
        return part.get_param("name", header="content-disposition")

    def answer(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Ear)
    print("listening", flush=True)
    server.serve_forever()
