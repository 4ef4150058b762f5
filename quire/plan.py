"""Asked, planned, measured: `plan()` turns every "auto" into a value, or refuses. Nothing edits a Plan later.

Knows: settings, hardware and model spec, as arguments. Does not know: files, the environment, arrays, clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from quire.devices import GPU_RUNTIME_BYTES, choose_attention, choose_device, device_bytes
from quire.errors import InvalidSetting, NotEnoughMemory
from quire.hardware import Hardware
from quire.model_spec import ModelSpec
from quire.precision import Precision
from quire.settings import EngineSettings, check

KV_BYTES = {"int8": 1, "fp8": 1, "bfloat16": 2, "float16": 2, "float32": 4}
GROUP_SIZE = {
    "int8": 0,
    "fp8": 0,
    "int4": 32,
    "int4x2": 0,
}  # where --quantization-group-size says nothing; decision 009
ITL_FACTOR = 5.0  # of a step without prompts: a chunk then spends a fifth of its time on what decoding pays anyway
ITL_FLOOR_S = 0.1  # ten tokens a second: as fast as people read
CANARY_FLOOR_S = 10.0
CANARY_FACTOR = 500.0  # 0.2 % of an idle engine's time
KV_SHARE = 0.25  # of what is free after the weights, unless the operator says otherwise
ACTIVATION_MARGIN = 1.25  # arena buffers grow to the largest step; measured 1.1x on the Qwen3-0.6B shape
LEAST_VOCABULARY_IN_PLANES = 32768
HEAD_ROWS = 64  # logits are made for this many rows at a time: 39 MB at a vocabulary of 152k
GPU_HEAD_ROWS = 256  # on a GPU: its matrix products want many rows
GPU_DRAW_BYTES = 56  # a logit's copies while a row is drawn from: adjusted, weights, their order and running sums
RUNTIME_BYTES = 200 * 2**20  # interpreter, libraries, tokenizer: measured 90-160 MB a process


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Weights by part: products of the layers, embedding and head (one where they are tied), norms and biases.

    `per_token` is what one token of one sequence reads: all but an embedding that is not the head.
    """

    layers: int
    embeddings: int
    vectors: int
    per_token: int

    @property
    def total(self) -> int:
        """What is held."""
        return self.layers + self.embeddings + self.vectors


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision made before the first tensor is read. Memory in bytes.

    `precision` is that of the layers' weights, `head_precision` that of the embedding and the head.
    `quantization_cache` is a folder, or empty. `device_bytes` is what a GPU may hold in all, 0 elsewhere; the KV cache
    planned for it may still become smaller once the activations have been measured. Logits are made for `head_rows`
    rows at a time. Attention is computed by "quire", "flashinfer", or (`attention_backend` "timed") by whoever is
    faster when the engine starts. An idle engine looks at itself every `canary_factor` times what that takes, at least
    `canary_floor_s`.
    """

    model: str
    dtype: str
    quantization: str
    quantization_cache: str
    precision: Precision
    head_precision: Precision
    kv_dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    threads: int
    prefix_cache: bool
    scheduling_policy: str
    itl_floor_s: float
    itl_factor: float
    weights: WeightBytes
    kv_bytes: int
    activation_bytes: int
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    batch_invariant: bool = False
    enforce_eager: bool = False
    attention_backend: str = "quire"
    head_rows: int = HEAD_ROWS
    device_bytes: int = 0
    canary_floor_s: float = CANARY_FLOOR_S
    canary_factor: float = CANARY_FACTOR

    @property
    def kv_tokens(self) -> int:
        """Tokens whose K and V fit the pool."""
        return self.num_blocks * self.block_size

    @property
    def total_bytes(self) -> int:
        """What the engine will hold when everything has been touched."""
        runtime = GPU_RUNTIME_BYTES if self.device_bytes else RUNTIME_BYTES
        return self.weights.total + self.kv_bytes + self.activation_bytes + runtime


@dataclass(frozen=True, slots=True)
class Contract:
    """What a server promises to those who come: bounds of the predicted wait, in seconds, and of the prompt tokens of
    those who wait. Without bounds deadlines are kept all the same."""

    max_wait_s: float = inf
    max_tokens: int | None = None


def plan(settings: EngineSettings, hardware: Hardware, spec: ModelSpec, model: str = "") -> Plan:
    """Decide everything for `spec` on `hardware`. Raises `InvalidSetting` or `NotEnoughMemory`."""
    check(settings)
    notes: list[str] = []
    device = choose_device(settings, hardware, notes)
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    kv_dtype = dtype if settings.kv_cache_dtype == "auto" else settings.kv_cache_dtype
    threads = settings.threads or hardware.num_cores
    precision, head_precision = precisions(settings, spec, device)
    weights = weight_bytes(spec, precision, head_precision)
    head_rows = HEAD_ROWS if device == "cpu" else GPU_HEAD_ROWS
    activation_bytes = _activation_bytes(settings, spec, device, head_rows)
    on_device = device_bytes(settings, hardware) if device == "cuda" else 0
    available = on_device or hardware.memory_available_bytes
    free = available - weights.total - activation_bytes - (GPU_RUNTIME_BYTES if on_device else RUNTIME_BYTES)
    if free <= 0:
        raise NotEnoughMemory(
            "the weights do not fit the memory that is available",
            got=f"{_mib(weights.total)} of weights, {_mib(available)} available",
            hint="Free memory, raise the container's limit, serve a smaller model, or try --quantization int8 or int4.",
        )
    max_model_len = _max_model_len(settings, spec)
    block_bytes = kv_block_bytes(settings.block_size, spec, kv_dtype, device)
    usable = free if on_device else int(free * KV_SHARE)
    num_blocks, max_model_len = _pool(settings, max_model_len, block_bytes, (free, usable), notes)
    return Plan(
        model=model,
        dtype=dtype,
        quantization=settings.quantization,
        quantization_cache=settings.quantization_cache or "",
        canary_floor_s=CANARY_FLOOR_S if settings.canary_interval is None else settings.canary_interval or inf,
        canary_factor=CANARY_FACTOR if settings.canary_interval is None else 0.0,
        precision=precision,
        head_precision=head_precision,
        kv_dtype=kv_dtype,
        max_model_len=max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        block_size=settings.block_size,
        num_blocks=num_blocks,
        threads=threads,
        prefix_cache=settings.prefix_cache,
        scheduling_policy=settings.scheduling_policy,
        itl_floor_s=ITL_FLOOR_S if settings.itl_target is None else settings.itl_target or inf,
        itl_factor=ITL_FACTOR if settings.itl_target is None else 0.0,
        weights=weights,
        kv_bytes=num_blocks * block_bytes,
        activation_bytes=activation_bytes,
        notes=tuple(notes),
        device=device,
        batch_invariant=settings.batch_invariant,
        enforce_eager=settings.enforce_eager,
        attention_backend=choose_attention(device, settings, hardware),
        head_rows=head_rows,
        device_bytes=on_device,
    )


def precisions(settings: EngineSettings, spec: ModelSpec, device: str) -> tuple[Precision, Precision]:
    """Of the layers' weights, and of the embedding and the head: beside int4 in two planes where the vocabulary is so
    large that it pays (decision 031)."""
    head = settings.head_quantization
    if head == "auto":
        head = {"none": "none", "fp8": "fp8"}.get(settings.quantization, "int8")
        if settings.quantization == "int4" and device == "cpu" and spec.vocab_size >= LEAST_VOCABULARY_IN_PLANES:
            head = "int4x2"
    precision = _precision(settings.quantization, settings.dtype, settings.quantization_group_size)
    return precision, _precision(head, settings.dtype, None)


def _precision(quantization: str, dtype: str, group_size: int | None) -> Precision:
    if quantization == "none":
        return Precision("bfloat16" if dtype == "auto" else dtype)
    return Precision(quantization, GROUP_SIZE[quantization] if group_size is None else group_size)


def weight_bytes(spec: ModelSpec, precision: Precision, head_precision: Precision) -> WeightBytes:
    """As the packed weights will count them."""
    products = sum(precision.packed_bytes(*shape) for shape in spec.block_matrices) * spec.num_layers
    head = head_precision.packed_bytes(spec.vocab_size, spec.hidden_size)
    num_ends = 1 if spec.tied_head else 2
    num_in_products = sum(outputs * inputs for outputs, inputs in spec.block_matrices) * spec.num_layers
    vectors = 4 * (spec.num_parameters - num_in_products - num_ends * spec.vocab_size * spec.hidden_size)
    per_token = products + head_precision.read_bytes(spec.vocab_size, spec.hidden_size) + vectors
    return WeightBytes(products, num_ends * head, vectors, per_token)


def kv_block_bytes(block_size: int, spec: ModelSpec, dtype: str, device: str = "cpu") -> int:
    """Bytes of one KV block over all layers. A GPU's pages are not padded; a scale there takes four bytes.

    In a page V's head_dim is padded to a multiple of 16, K's to whole words of 4 bytes; int8 has a word of two scales
    for each token and kv head.
    """
    size, head_dim = KV_BYTES[dtype], spec.head_dim
    heads = block_size * spec.num_layers * spec.num_kv_heads
    if device != "cpu":
        return heads * 2 * (head_dim * size + (4 if size == 1 else 0))
    keys, values = -(-head_dim * size // 4) * 4, -(-head_dim // 16) * 16 * size
    return heads * (keys + values + (4 if dtype == "int8" else 0))


def _max_model_len(settings: EngineSettings, spec: ModelSpec) -> int:
    asked = settings.max_model_len
    longest = spec.extended_context_length
    if asked is not None and asked > longest:
        raise InvalidSetting(
            "--max-model-len is longer than the model's context", got=asked, allowed=f"at most {longest}"
        )
    return asked or spec.context_length


def _pool(
    settings: EngineSettings, max_model_len: int, block_bytes: int, room: tuple[int, int], notes: list[str]
) -> tuple[int, int]:
    """Blocks of the pool, and the context that they can really hold: one longest sequence must always fit.

    `room` is the bytes that are free, and how many of them are taken unless the operator says otherwise.
    """
    free, usable = room
    blocks_per_sequence = -(-max_model_len // settings.block_size)
    need = blocks_per_sequence * settings.max_num_seqs
    asked = settings.kv_cache_memory_bytes
    if asked is not None and asked > free:
        raise NotEnoughMemory(
            "--kv-cache-memory-bytes is more than what is free after the weights", got=asked, allowed=f"at most {free}"
        )
    budget = asked if asked is not None else min(usable, need * block_bytes)
    num_blocks = budget // block_bytes
    if num_blocks >= blocks_per_sequence:
        return num_blocks, max_model_len
    fits = num_blocks * settings.block_size
    if settings.max_model_len is not None or fits < min(max_model_len, 256):
        raise NotEnoughMemory(
            "the KV cache cannot hold one sequence of the longest length",
            got=f"{_mib(budget)} for {fits} tokens",
            allowed=f"{_mib(blocks_per_sequence * block_bytes)} or more for {max_model_len} tokens",
            hint="Lower --max-model-len or raise --kv-cache-memory-bytes.",
        )
    notes.append(f"context cut from {max_model_len} to {fits} tokens: the KV cache holds no more")
    return num_blocks, fits


def _activation_bytes(settings: EngineSettings, spec: ModelSpec, device: str, head_rows: int) -> int:
    """Per row residual (all, last, chosen), qkv, q, attention out, gate/up, packed inputs; `head_rows` logit rows.

    A GPU's share is an estimate (4 bytes a number, and what a draw needs): a dry run measures it before the KV cache is
    made. Penalties take a count of every token for two generations of sequences.
    """
    qkv = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    row = 3 * spec.hidden_size + qkv + 2 * spec.num_heads * spec.head_dim + 3 * spec.intermediate_size
    rows = max(settings.max_num_batched_tokens, settings.max_num_seqs)
    logits = head_rows * spec.vocab_size
    drawing = 0 if device == "cpu" else GPU_DRAW_BYTES * logits + 8 * settings.max_num_seqs * spec.vocab_size
    return int(4 * (rows * row + logits) * ACTIVATION_MARGIN) + drawing


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
