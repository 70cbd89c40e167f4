"""Uses an OpenAI-compatible server as any program would: through the official SDK, knowing nothing but a base URL.

The server must serve the model of make_model.py, whose every answer is known beforehand. Prints `OK` and exits with 0 when
all of them arrived as they must; a step that fails is named on standard error.

Usage: client.py BASE_URL     (such as http://10.77.0.4:8000/v1)
"""

import itertools
import sys

from openai import OpenAI

from make_model import END, MODEL_ID, SENTENCE

RECITAL = " " + SENTENCE
WORD_CHUNKS = [" " + word for word in SENTENCE.split()]

GREETING = [
    {"role": "system", "content": "You are a bee."},
    {"role": "user", "content": "Who may enter?"},
]


def check_equal(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def the_model_is_listed(client: OpenAI) -> None:
    check_equal("models", [model.id for model in client.models.list()], [MODEL_ID])


def a_completion_is_whole(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL_ID, prompt="Tell me of bees.", temperature=0)
    check_equal("completion", answer.choices[0].text, RECITAL)
    check_equal("finish reason", answer.choices[0].finish_reason, "stop")


def a_completion_streams_word_by_word(client: OpenAI) -> None:
    chunks = client.completions.create(model=MODEL_ID, prompt="Tell me of bees.", temperature=0, stream=True)
    texts = [chunk.choices[0].text for chunk in chunks]
    check_equal("streamed words", [text for text in texts if text], WORD_CHUNKS)


def a_chat_is_whole(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL_ID, messages=GREETING, temperature=0)
    check_equal("chat", answer.choices[0].message.content, RECITAL)
    check_equal("finish reason", answer.choices[0].finish_reason, "stop")
    check_equal("completion tokens", answer.usage.completion_tokens, len(WORD_CHUNKS) + 1)


def a_chat_streams_word_by_word(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model=MODEL_ID, messages=GREETING, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    words, reasons, usages = [], [], []
    for chunk in chunks:
        words += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        reasons += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        usages += [chunk.usage] if chunk.usage else []
    check_equal("streamed words", words, WORD_CHUNKS)
    check_equal("finish reasons", reasons, ["stop"])
    check_equal("usage reports", len(usages), 1)


def chunks_arrive_before_the_answer_ends(client: OpenAI) -> None:
    """The answer never ends, because its end token is forbidden: only a path that holds nothing back shows its beginning."""
    expected = list(itertools.islice(itertools.cycle(WORD_CHUNKS), 1000))
    words = []
    with client.chat.completions.create(
        model=MODEL_ID, messages=GREETING, temperature=0, stream=True, logit_bias={str(END): -100}
    ) as chunks:
        for chunk in chunks:
            if chunk.choices[0].delta.content:
                words.append(chunk.choices[0].delta.content)
            if len(words) == len(expected):
                break
        else:
            raise AssertionError(f"the endless answer ended after {len(words)} words")
    check_equal("words of the endless answer", words, expected)


def embeddings_tell_texts_apart(client: OpenAI) -> None:
    """Hundreds of vectors in one answer: far more bytes than a packet holds."""
    texts = [f"bee number {number}" for number in range(300)] + ["bee number 7"]
    vectors = [item.embedding for item in client.embeddings.create(model=MODEL_ID, input=texts).data]
    check_equal("number of vectors", len(vectors), len(texts))
    check_equal("dimensions", {len(vector) for vector in vectors}, {128})
    for text, vector in zip(texts, vectors):
        length = sum(part * part for part in vector)
        if abs(length - 1.0) > 1e-3:
            raise AssertionError(f"the vector of {text!r} has squared length {length}, not 1")
    check_equal("vector of the same text", similarity(vectors[7], vectors[-1]) > 0.999, True)
    check_equal("vector of another text", similarity(vectors[7], vectors[8]) > 0.999, False)


def similarity(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other))


STEPS = [
    the_model_is_listed,
    a_completion_is_whole,
    a_completion_streams_word_by_word,
    a_chat_is_whole,
    a_chat_streams_word_by_word,
    chunks_arrive_before_the_answer_ends,
    # After the abandoned stream: the server must have learned that its client is gone.
    a_chat_is_whole,
    embeddings_tell_texts_apart,
]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} BASE_URL")
    # No retries: they would hide what the network lost.
    client = OpenAI(base_url=sys.argv[1], api_key="unused", timeout=30, max_retries=0)
    for step in STEPS:
        sentence = step.__name__.replace("_", " ")
        try:
            step(client)
        except Exception as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            sys.exit(f"not so: {sentence}: {error}{cause}")
        print(sentence, flush=True)
    print("OK")


if __name__ == "__main__":
    main()
