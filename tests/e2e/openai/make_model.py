"""Writes the model the end-to-end test serves: a llama that knows one sentence by heart.

A model from a hub would be slow to download and would answer differently from one version of the engine to the next.
This one is a real llama GGUF of about 600 kB whose weights are chosen instead of trained. The embedding of a token is a unit
vector of its own, attention and feed-forward add nothing, and the output matrix answers each token with its
successor. So greedy decoding recites SENTENCE word by word, one token each, on any machine and any version, and a client
can compare every byte it received with what the server must have said.

    after a word          its successor
    after the last word   the end token; the first word again where the client forbids the end token (`logit_bias`)
    after anything else   the first word

Usage: make_model.py FILE
"""

import os
import sys

import gguf
import numpy as np

SENTENCE = "bees of a hive know each other by scent and whoever carries it may walk in at any gate while strangers are kept out."

# The name under which the server lists the model.
MODEL_ID = "hive-reciter"

# SentencePiece writes a space as U+2581. Text is tokenized into single ASCII characters; a word is one token, which only
# the model itself utters, because no pair of characters is a token that could be merged into it.
SPACE = "\u2581"
SPECIALS = ["<unk>", "<s>", "</s>"]
NEWLINE = ["<0x0A>"]
CHARACTERS = [chr(code).replace(" ", SPACE) for code in range(0x20, 0x7F)]
WORDS = [SPACE + word for word in SENTENCE.split()]
TOKENS = SPECIALS + NEWLINE + CHARACTERS + WORDS

UNKNOWN, BEGIN, END = range(len(SPECIALS))
FIRST_WORD = len(TOKENS) - len(WORDS)
LAST_WORD = len(TOKENS) - 1

# One dimension for each token, so that the unit vectors exist.
WIDTH = 128
HEADS = 4
CONTEXT = 512
assert len(TOKENS) <= WIDTH, "the sentence has too many words for the model"
assert len(set(TOKENS)) == len(TOKENS), "each word of the sentence may occur only once: it is a token"

# Speaks "role: text" line by line and leaves the assistant's line open.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def output_matrix() -> np.ndarray:
    """Row = the token spoken, column = the token before it, value = how much the one calls for the other."""
    matrix = np.zeros((len(TOKENS), WIDTH), dtype=np.float32)
    for word in range(FIRST_WORD, LAST_WORD):
        matrix[word + 1, word] = 1.0
    matrix[END, LAST_WORD] = 1.0
    matrix[FIRST_WORD, LAST_WORD] = 0.5
    matrix[FIRST_WORD, :FIRST_WORD] = 1.0
    return matrix


def write_model(path: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(MODEL_ID)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    kinds = [gguf.TokenType.NORMAL] * len(TOKENS)
    kinds[UNKNOWN] = gguf.TokenType.UNKNOWN
    kinds[BEGIN] = kinds[END] = gguf.TokenType.CONTROL
    kinds[len(SPECIALS)] = gguf.TokenType.BYTE
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)

    nothing = np.zeros((WIDTH, WIDTH), dtype=np.float32)
    ones = np.ones(WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", np.eye(len(TOKENS), WIDTH, dtype=np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output_matrix())
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{part}.weight", nothing)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FILE")
    path = sys.argv[1]
    # Renamed into place, so that a reader never meets half a model.
    partial = f"{path}.{os.getpid()}"
    write_model(partial)
    os.replace(partial, path)


if __name__ == "__main__":
    main()
