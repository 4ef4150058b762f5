"""Which tile each kernel takes, by rule from shapes alone: no measuring at run time, and no surprise in a graph.

What the choices rest on (H200, SXM): 132 processors (SM) with 227 KB of shared memory and 256 KB of registers each;
4.3 TB/s measured (33 GB/s an SM), a latency near 0.8 us, so an SM keeps itself busy with 26 KB of loads in flight;
790 TFLOP/s measured in bfloat16, so a tile that reads a weight once must do 184 operations a byte before arithmetic
is what it waits for.

Knows: shapes and the machine's number of processors. Does not know: tensors' contents, or what the kernels compute.

Legend: T tokens, S sequences, M rows, N outputs, K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

INTERPRETED_PROCESSORS = 3  # a number that no grid is a multiple of


def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors; a few where kernels are interpreted."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least` >= 1."""
    return 1 << (least - 1).bit_length()


# ---- attention ----------------------------------------------------------------------------------------------------

INVARIANT_SPLIT = 1024
LEAST_SPLIT = 256
MOST_SPLITS = 64
MOST_ITEMS = 8192
BLOCK_N = 64


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """Rows (query heads of one kv head times tokens) and keys of a tile, keys a split, and what it is run with.

    `programs` is how many of them an SM has registers and shared memory for.
    """

    block_m: int
    block_n: int
    split: int
    num_warps: int
    num_stages: int
    programs: int


def sequences_block(num_seqs: int) -> int:
    """Sequences that a program looks through for its item: 16, 64, 256 ..., so that few kernels are compiled.

    Looking through 1024 takes 4 warps some 1 us, once a launch.
    """
    block = 16
    while block < num_seqs:
        block *= 4
    return block


def attention_tile(
    num_tokens: int, num_seqs: int, most_keys: int, group: int, head_dim: int, invariant: bool
) -> AttentionTile:
    """The tile of a step of `num_tokens` rows whose longest sequence has at most `most_keys` keys.

    rows   One token has `group` rows, 4 for Llama-3.1-8B. Decoding reads each key and value once for them, so memory
           is what it waits for: 16 rows, the least that tensor cores take, and little of everything else, so that two
           programs share an SM. Mixed steps take 64 rows, one `wgmma`: padded to them, a token does 64 operations a
           byte of keys, still below 184. Prompts take 128, which reads a key half as often.
    keys   64: 16 KB of keys and 16 KB of values of 128 columns; three stages of both and the queries are 112 KB, so
           two programs have room. 32 of 256 columns.
    split  A sequence whose queries fit one tile is cut at multiples of `split` keys. 256 give eight kv heads at 4096
           keys 128 programs, one an SM; more than 64 splits are not made, since combining them walks through them one
           by one. Not more than 8192 pieces in all (34 KB of partial sums each at 8 heads of 128 and 4 rows).

    `invariant` is one tile and one split for every step: 64 rows and 1024 keys.
    """
    block_n = 32 if head_dim > 128 else BLOCK_N
    stages = 2 if head_dim > 128 else 3
    if invariant:
        return AttentionTile(max(64, power_of_two(group)), block_n, INVARIANT_SPLIT, 4, stages, 2)
    least_split = max(LEAST_SPLIT, -(-most_keys // MOST_SPLITS), -(-most_keys * num_seqs // MOST_ITEMS))
    split = power_of_two(least_split)
    mean_rows = num_tokens * group // max(num_seqs, 1)
    if num_tokens <= num_seqs:
        return AttentionTile(max(16, power_of_two(group)), block_n, split, 4, stages, 3)
    if mean_rows < 256 or head_dim > 128:
        return AttentionTile(max(64, power_of_two(group)), block_n, split, 4, stages, 2)
    return AttentionTile(max(128, power_of_two(group)), block_n, split, 8, stages, 1)
