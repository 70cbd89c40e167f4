"""Uses the models of a whole network through one address, with the official SDK.

Usage: endpoint.py BASE_URL STEP [ARGUMENT...]
    all MODEL...        every model answers in every way
    tools MODEL         a model calls tools
    hear MODEL NODE     a model transcribes, however its form is ordered
    many MODEL COUNT    so many streams at once
    broken MODEL        a stream whose server goes away; prints `streaming from NODE` and waits for the error
    ttft MODEL COUNT BASE_URL...    median and 99th percentile of the time to the first token, in milliseconds, by base URL

Prints `OK` last and exits with 0 when all was as it must be.
"""

import asyncio
import hashlib
import itertools
import json
import statistics
import sys
import time
import urllib.request

from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

import client as sdk
from make_model import END


def connect(base_url: str) -> OpenAI:
    # No retries: they would hide what the endpoint has to do.
    return OpenAI(base_url=base_url, api_key="unused", timeout=60, max_retries=0)


def every_model(base_url: str, *models: str) -> None:
    client = connect(base_url)
    sdk.check_equal("models", sorted(model.id for model in client.models.list()), sorted(models))
    for model in models:
        sdk.check_equal("one model", client.models.retrieve(model).id, model)
        sdk.MODEL_ID = model
        sdk.a_completion_is_whole(client)
        sdk.a_completion_streams_word_by_word(client)
        sdk.a_chat_is_whole(client)
        sdk.a_chat_streams_word_by_word(client)
        sdk.chunks_arrive_before_the_answer_ends(client)
        # After the abandoned stream: the server must have learned that its client is gone.
        sdk.a_chat_is_whole(client)
        sdk.embeddings_tell_texts_apart(client)
        answer = client.chat.completions.create(model=model, messages=sdk.GREETING, temperature=0)
        sdk.check_equal("the model that answered", answer.model, model)
    try:
        client.chat.completions.create(model=models[0] + "x", messages=sdk.GREETING)
        raise AssertionError("a model that nobody has answers")
    except NotFoundError as error:
        sdk.check_equal("code", error.code, "model_not_found")
        sdk.check_equal("a close match is named", models[0] in error.message, True)
    asyncio.run(asynchronously(base_url, models))


async def asynchronously(base_url: str, models: tuple[str, ...]) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="unused", timeout=60, max_retries=0) as client:

        async def ask(model: str) -> None:
            stream = await client.chat.completions.create(
                model=model, messages=sdk.GREETING, temperature=0, stream=True
            )
            words = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
            sdk.check_equal("streamed words", [word for word in words if word], sdk.WORD_CHUNKS)

        await asyncio.gather(*map(ask, models))


def tools(base_url: str, model: str) -> None:
    client = connect(base_url)
    tool = {"type": "function", "function": {"name": "echo", "parameters": {"type": "object", "properties": {}}}}
    asked = {"model": model, "messages": sdk.GREETING, "tools": [tool], "tool_choice": "auto"}
    call = client.chat.completions.create(**asked).choices[0].message.tool_calls[0]
    sdk.check_equal("what arrived", json.loads(call.function.arguments), asked)
    pieces = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            pieces.append(part.function.arguments)
    sdk.check_equal("pieces of a call", len(pieces), 2)
    sdk.check_equal("what arrived", json.loads("".join(pieces)), asked | {"stream": True})


def hear(base_url: str, model: str, node: str) -> None:
    client = connect(base_url)
    # Everything that might be taken for the end of a part, and more than is read at once.
    noise = b"\r\n--\r\n" + bytes(range(256)) * 4096 + b"\r\n"
    for sound in b"RIFF", noise:
        for asked in model, f"{model}@{node}":
            file = ("a.wav", sound)
            transcribed = client.audio.transcriptions.create(model=asked, file=file, language="en")
            heard = json.loads(transcribed.text)
            sdk.check_equal("the model that was asked for", heard["model"], model)
            sdk.check_equal("what was heard", heard["sha256"], hashlib.sha256(sound).hexdigest())
            sdk.check_equal("fields", sorted(heard["fields"]), ["file", "language", "model"])
            # As OpenAI's own examples for curl have it.
            heard = json.loads(file_first(f"{base_url}/audio/translations", asked, sound)["text"])
            sdk.check_equal("the order", heard["fields"], ["file", "model"])
            sdk.check_equal("the model that was asked for", heard["model"], model)
            sdk.check_equal("what was heard", heard["sha256"], hashlib.sha256(sound).hexdigest())
    try:
        client.audio.transcriptions.create(model=model + "x", file=("a.wav", noise))
        raise AssertionError("a model that nobody has answers")
    except NotFoundError as error:
        sdk.check_equal("code", error.code, "model_not_found")
    try:
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        raise AssertionError("what names no model is answered")
    except BadRequestError as error:
        sdk.check_equal("code", error.code, "missing_model")


def file_first(url: str, model: str, sound: bytes) -> dict:
    part = "--limit\r\nContent-Disposition: form-data; name="
    body = f'{part}"file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'.encode() + sound
    body += f'\r\n{part}"model"\r\n\r\n{model}\r\n--limit--\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=60) as answer:
        return json.load(answer)


def many(base_url: str, model: str, count: str) -> None:
    async def all_at_once() -> None:
        async with AsyncOpenAI(base_url=base_url, api_key="unused", timeout=100, max_retries=0) as client:

            async def ask() -> str:
                raw = await client.chat.completions.with_raw_response.create(
                    model=model, messages=sdk.GREETING, temperature=0, stream=True
                )
                words = [chunk.choices[0].delta.content async for chunk in raw.parse() if chunk.choices]
                sdk.check_equal("streamed words", [word for word in words if word], sdk.WORD_CHUNKS)
                return raw.headers["x-hive-node"]

            nodes = await asyncio.gather(*(ask() for _ in range(int(count))))
            print("answered by", {node: nodes.count(node) for node in sorted(set(nodes))})

    asyncio.run(all_at_once())


def broken(base_url: str, model: str) -> None:
    client = connect(base_url)
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=sdk.GREETING, temperature=0, stream=True, logit_bias={str(END): -100}
    )
    stream = raw.parse()
    first = raw.headers["x-hive-node"]
    try:
        for chunk in itertools.islice(stream, 5):
            assert chunk.choices
        print("streaming from", first, flush=True)
        for _ in stream:
            pass
        raise AssertionError("a stream without an end has ended as if it had one")
    except APIError as error:
        sdk.check_equal("the error names the node", first in error.message, True)
        print("it says:", error.message, flush=True)
    raw = client.chat.completions.with_raw_response.create(model=model, messages=sdk.GREETING, temperature=0)
    sdk.check_equal("chat", raw.parse().choices[0].message.content, sdk.RECITAL)
    sdk.check_equal("another node answers", raw.headers["x-hive-node"] != first, True)


def ttft(_: str, model: str, count: str, *base_urls: str) -> None:
    clients = {url: connect(url) for url in base_urls}
    times: dict[str, list[float]] = {url: [] for url in base_urls}
    # In turn, so that a mood of the machine hits all of them alike; the first of each opens connections.
    for number in range(int(count) + 1):
        for url, client in clients.items():
            begun = time.perf_counter()
            with client.chat.completions.create(
                model=model, messages=sdk.GREETING, temperature=0, max_tokens=2, stream=True
            ) as stream:
                next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
                if number:
                    times[url].append((time.perf_counter() - begun) * 1000)
                for _ in stream:
                    pass
    for url, measured in times.items():
        percentiles = statistics.quantiles(measured, n=100)
        print(f"{url}: median {percentiles[49]:.2f} ms, p99 {percentiles[98]:.2f} ms")


STEPS = {"all": every_model, "tools": tools, "hear": hear, "many": many, "broken": broken, "ttft": ttft}


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[2] not in STEPS:
        sys.exit(__doc__)
    base_url, step, *arguments = sys.argv[1:]
    STEPS[step](base_url, *arguments)
    print("OK")


if __name__ == "__main__":
    main()
