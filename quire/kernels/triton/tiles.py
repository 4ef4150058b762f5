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


# ---- products -----------------------------------------------------------------------------------------------------

FEW_ROWS = 16
SOME_ROWS = 64
BYTES_A_STEP = 256
ENOUGH_TILES = 96
LEAST_INPUTS_A_SPLIT = 512


@dataclass(frozen=True, slots=True)
class LinearTile:
    """Rows, outputs and inputs of a step of the sum, splits of the inputs, and what it is run with.

    `prepares` says that norm and gate are applied on the way in rather than by a launch before.
    """

    block_m: int
    block_n: int
    block_k: int
    num_splits: int
    num_warps: int
    num_stages: int
    prepares: bool


def linear_tile(
    num_rows: int, num_outputs: int, num_inputs: int, bits: int, group_size: int, invariant: bool
) -> LinearTile:
    """The tile of a product with a weight of `bits` an element, scaled in groups of `group_size` inputs (0: rows).

    few    Up to 16 rows memory is what it waits for: every weight is read once, so the tile is as narrow as it takes
           for all SMs to read (4096 outputs are 128 tiles of 32), and long in K: 256 bytes of a row of weights a step.
           Six stages of 32 such rows (four of 64) are 40 KB in flight, where 26 KB are needed. (Steps of 512 bytes took
           all registers where weights are widened, and 17 s to compile where rows are gated.)
    some   Up to 64 rows the same with 64 rows a tile, which is one `wgmma`; padded, 64 rows do 64 operations a byte of
           bfloat16 and 256 a byte of int4, so memory (or both alike) is still what it waits for.
    many   128 x 128 outputs a tile: 64 operations a byte of what the tile reads from L2, of which there are 5 TB/s.
    splits Outputs that give fewer than 96 tiles have their inputs split, in twos, as long as 512 inputs are left; the
           splits are added in ascending order by a second launch (2 us: not worth it for 4096 x 4096, which takes 8).

    A scale's group is a step, so groups of 128 read 64 bytes of a row of int4 at once and groups of 32 only 16.
    `invariant` is one tile and one number of splits for every number of rows.
    """
    step = min(256, BYTES_A_STEP * 8 // bits)
    if invariant:
        return _split(64, 64, group_size or 64, num_outputs, num_inputs, 4, 3, prepares=False)
    if num_rows <= SOME_ROWS:
        few = num_rows <= FEW_ROWS
        block_n = 64 if num_outputs >= 64 * 2 * ENOUGH_TILES else 32 if num_outputs >= 32 * ENOUGH_TILES else 16
        stages = 3 if not few else 6 if block_n <= 32 else 4
        block_m, block_k = (16, group_size or step) if few else (SOME_ROWS, group_size or 128)
        return _split(block_m, block_n, block_k, num_outputs, num_inputs, 4, stages, prepares=few)
    return LinearTile(128, 128, min(group_size or 64, 64), 1, 8, 3, prepares=False)


def _split(
    block_m: int, block_n: int, block_k: int, num_outputs: int, num_inputs: int, warps: int, stages: int, prepares: bool
) -> LinearTile:
    num_splits, num_tiles = 1, -(-num_outputs // block_n)
    while num_tiles * num_splits < ENOUGH_TILES and num_inputs >= 2 * num_splits * LEAST_INPUTS_A_SPLIT:
        num_splits *= 2
    return LinearTile(block_m, block_n, block_k, num_splits, warps, stages, prepares)
