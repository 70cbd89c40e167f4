"""Serves a model file with llama.cpp's own OpenAI-compatible HTTP server until it is killed.

Prints one line, `listening on http://ADDRESS:PORT`, once requests are answered; the server's log goes to standard error.

Usage: serve.py MODEL ADDRESS PORT [ID]     (ID: what the model is called, hive-reciter without)
"""

import signal
import sys

import xllamacpp

from make_model import MODEL_ID


def parameters(model: str, address: str, port: int, model_id: str) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {model_id}
    params.hostnames = [address]
    params.port = port
    params.ui = False

    # One request at a time: a stream that its client abandoned, and that the server does not learn of, blocks the next
    # request and so fails the test.
    params.n_parallel = 1
    # A full context drops its older half instead of ending the answer: that makes an answer without an end possible.
    params.ctx_shift = True
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN

    # The model is tiny: more threads, a graphics card or a prompt cache would only cost start-up time.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_gpu_layers = 0
    params.fit_params = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    return params


def main() -> None:
    if len(sys.argv) not in (4, 5):
        sys.exit(f"usage: {sys.argv[0]} MODEL ADDRESS PORT [ID]")
    model, address, port, *rest = sys.argv[1:]
    model_id = rest[0] if rest else MODEL_ID
    server = xllamacpp.Server(parameters(model, address, int(port), model_id))
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
