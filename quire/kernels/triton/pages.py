"""Copies of whole KV blocks.

    a program moves 4 KiB of the keys or values of one layer of one pair of blocks: 16 bytes a thread, twice, four
    warps

Bound by memory: a block of 16 tokens of Llama-3.1-8B is 2 MiB in all layers, 1 us to read and write at 4.3 TB/s.

Knows: the layout of pages. Does not know: who owns a block.

Legend: L layers, B blocks, N pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from quire.kernels.torch.pages import Pages

BLOCK_WORDS = 1024


@triton.jit
def _copy_blocks(data_ptr, sources_ptr, destinations_ptr, num_blocks, words_a_block, BLOCK: tl.constexpr):
    pair, part = tl.program_id(0), tl.program_id(1).to(tl.int64)
    words = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = words < words_a_block
    source, destination = tl.load(sources_ptr + pair), tl.load(destinations_ptr + pair)
    held = tl.load(data_ptr + (part * num_blocks + source) * words_a_block + words, mask=inside)
    tl.store(data_ptr + (part * num_blocks + destination) * words_a_block + words, held, mask=inside)


def copy_blocks(pages: Pages, sources_N: Tensor, destinations_N: Tensor) -> None:
    """Copy whole blocks in all layers; no destination is a source. Both int32 or int64, on the pages' device."""
    if len(sources_N) == 0:
        return
    for held in (pages.data, pages.scales):
        if held is not None:
            words = held.view(torch.uint8).flatten(0, 1).flatten(2)
            words = words.view(torch.int32) if words.shape[2] % 4 == 0 else words
            parts, num_blocks, size = words.shape
            grid = (len(sources_N), parts, triton.cdiv(size, BLOCK_WORDS))
            _copy_blocks[grid](words, sources_N, destinations_N, num_blocks, size, BLOCK_WORDS)
