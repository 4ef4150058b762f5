"""Resident memory beside the length of a prompt, with its log probabilities and without: what they cost must stay flat.

    python benchmarks/prompt_logprobs.py [--lengths 1024 4096 16384 32768] [--top 20] [--vocab 151936]

The model is made for it: random weights of one narrow layer, since logits, not layers, are what prompt log
probabilities add. Every row is a fresh process (two for `serve`: server and engine), so its high-water mark is its own:

    offline   LLM.generate, which holds the whole result: 16 bytes for each of its numbers
    serve     POST /v1/completions, stream=true: the reader has every part as soon as it is computed
    whole     the same without stream: the server holds the answer until its end, as JSON

The K and V of a prompt are resident too, and grow with it whether anybody asks for log probabilities or not; so each
row is held against the same prompt without them. Linux only: it reads VmHWM.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tokenizers

WIDTH, NUM_HEADS, HEAD_DIM, INNER = 64, 2, 32, 64
WAIT_S = 600


def write_model(folder: Path, vocab_size: int, context: int) -> None:
    """A llama of one layer with tied embeddings, in bf16, and a tokenizer of bytes."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(weights(vocab_size))
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def weights(vocab_size: int) -> bytes:
    """A safetensors file."""
    heads, layer = NUM_HEADS * HEAD_DIM, "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (vocab_size, WIDTH),
        "model.norm.weight": (WIDTH,),
        layer + "input_layernorm.weight": (WIDTH,),
        layer + "post_attention_layernorm.weight": (WIDTH,),
        layer + "self_attn.q_proj.weight": (heads, WIDTH),
        layer + "self_attn.k_proj.weight": (HEAD_DIM, WIDTH),
        layer + "self_attn.v_proj.weight": (HEAD_DIM, WIDTH),
        layer + "self_attn.o_proj.weight": (WIDTH, heads),
        layer + "mlp.gate_proj.weight": (INNER, WIDTH),
        layer + "mlp.up_proj.weight": (INNER, WIDTH),
        layer + "mlp.down_proj.weight": (WIDTH, INNER),
    }
    rng, header, data = np.random.default_rng(0), {}, b""
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        part = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def prompt_of(length: int, vocab_size: int) -> list[int]:
    """Ids drawn at random."""
    rng = random.Random(length)
    return [rng.randrange(2, vocab_size) for _ in range(length)]


def high_water_mb(pid: int | str) -> float:
    """The most that a process ever had resident, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def options(args: argparse.Namespace) -> dict[str, int]:
    """The same for every length, so that nothing differs but the prompt."""
    return {"max_model_len": context_of(args), "max_num_seqs": 4, "kv_cache_memory_bytes": args.kv_bytes}


def context_of(args: argparse.Namespace) -> int:
    """Room for the longest prompt and an answer."""
    return max(args.lengths) + 64


def offline(args: argparse.Namespace) -> None:
    """In this process: one prompt, and the high-water mark."""
    from quire import LLM, SamplingParams

    length, top = args.one
    llm = LLM(args.model, **options(args))
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=None if top < 0 else top)
    (output,) = llm.generate(prompt_of(length, args.vocab), params)
    assert top < 0 or (output.prompt_logprobs is not None and len(output.prompt_logprobs) == length)
    print(json.dumps({"offline": high_water_mb("self")}))


@contextmanager
def server(args: argparse.Namespace) -> Iterator[tuple[str, list[int]]]:
    """`quire serve`: its address, and the ids of its processes."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options(args).items()]
    log = Path(args.model) / "server.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "quire", "serve", args.model, "--port", "0", *given]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield address(log, process), [process.pid, *children(process.pid)]
    finally:
        process.terminate()
        process.wait(WAIT_S)


def address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens, once it does."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        if found is not None:
            return found[0]
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def children(pid: int) -> list[int]:
    """All descendants."""
    own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for child in own for each in (child, *children(child))]


def served(args: argparse.Namespace, length: int, top: int, stream: bool) -> tuple[float, float]:
    """(high-water mark of the server, of its engine and the rest) in MB after one prompt."""
    body = {"prompt": prompt_of(length, args.vocab), "max_tokens": 1, "temperature": 0, "stream": stream}
    body |= {} if top < 0 else {"prompt_logprobs": top}
    with server(args) as (url, pids):
        request = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310 - our own server
            while answer.read(2**20):
                pass
        marks = [high_water_mb(pid) for pid in pids]
    return marks[0], sum(marks[1:])


def table(args: argparse.Namespace) -> None:
    """A row for each length."""
    print(f"{args.vocab} tokens of vocabulary, {args.top} likeliest of each; resident high-water mark in MB, and what")
    print("is added to that of the same prompt without log probabilities")
    heads = ("offline", "", "serve: server", "", "engine", "", "whole: server", "")
    print(f"{'prompt':>8} " + " ".join(f"{head:>14}" for head in heads))
    for length in args.lengths:
        marks: list[float] = []
        for top in (-1, args.top):
            asked = [*sys.argv, "--model", args.model, "--one", str(length), str(top)]
            out = subprocess.run([sys.executable, *asked], check=True, capture_output=True).stdout
            whole = served(args, length, top, False)[0]
            marks += [json.loads(out.splitlines()[-1])["offline"], *served(args, length, top, True), whole]
        pairs = zip(marks[4:], marks[:4], strict=True)
        print(f"{length:>8} " + " ".join(f"{have:>14.0f} {have - base:>+14.0f}" for have, base in pairs), flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 32768])
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--kv-bytes", type=int, default=2**26)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        offline(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.model = folder
        write_model(Path(folder), args.vocab, context_of(args))
        table(args)


if __name__ == "__main__":
    main()
