"""How long many streams at once wait for their first tokens: a server that has time for all of them, and a crowd of clients.

Usage: crowd.py serve ADDRESS PORT ID
       crowd.py ask ID STREAMS ROUNDS BASE_URL...    median and 99th percentile in milliseconds, by base URL
"""

import asyncio
import json
import statistics
import sys
import time
from urllib.parse import urlsplit

TOKENS = 20
PACE = 0.02
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        lines = head.decode().split("\r\n")
        lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
        await reader.readexactly(int(lengths[0]) if lengths else 0)
        if lines[0].startswith("GET"):
            models = json.dumps({"object": "list", "data": [{"id": sys.argv[4], "object": "model"}]})
            writer.write(HEAD.format("application/json").encode() + chunk(models) + b"0\r\n\r\n")
            continue
        writer.write(HEAD.format("text/event-stream").encode())
        for number in range(TOKENS):
            delta = {"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}
            writer.write(chunk(f"data: {json.dumps(delta)}\n\n"))
            await writer.drain()
            await asyncio.sleep(PACE)
        writer.write(chunk("data: [DONE]\n\n") + b"0\r\n\r\n")


async def serve(address: str, port: str, _: str) -> None:
    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(until_gone, address, int(port), backlog=256)
    print("listening", flush=True)
    await server.serve_forever()


async def stream(url: str, model: str) -> float:
    """One stream from its request to its end; returns the milliseconds to the first token."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    body = json.dumps({"model": model, "stream": True, "messages": []})
    begun = time.perf_counter()
    request = f"POST {where.path}/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{request}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    await reader.readuntil(b"data: ")
    first = (time.perf_counter() - begun) * 1000
    rest = await reader.readuntil(b"[DONE]")
    assert rest.count(b"data: ") == TOKENS, rest
    writer.close()
    return first


async def ask(model: str, streams: str, rounds: str, *urls: str) -> None:
    times: dict[str, list[float]] = {url: [] for url in urls}
    # In turn, so that a mood of the machine hits all of them alike.
    for _ in range(int(rounds)):
        for url in urls:
            times[url] += await asyncio.gather(*(stream(url, model) for _ in range(int(streams))))
    for url, measured in times.items():
        percentiles = statistics.quantiles(measured, n=100)
        print(f"{url}: {len(measured)} streams, median {percentiles[49]:.2f} ms, p99 {percentiles[98]:.2f} ms")
    print("OK")


if __name__ == "__main__":
    asyncio.run({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
