"""Texts to fixed-length rows of ids, with the weight of each target.

Knows packing and which tokens are learned; knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.chat import END_OF_TEXT, TURN_END, TURN_START

TEXTS_AT_ONCE = 512
PROMPT_WEIGHT = 0.3  # the user's and the system's words teach what words mean and to copy
NUM_WAITING = 64  # texts to choose from, so that little of a row stays empty


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T ids, the id that follows each, and how much that one counts (0 in what stays empty)."""

    ids_BT: Tensor
    targets_BT: Tensor
    weights_BT: Tensor


class Packer:
    """Fills rows of one length with whole texts, the oldest that fits first; a text longer than a row is dropped."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterator[str], length: int) -> None:
        self.length = length
        self.tokenizer = tokenizer
        self.encoded = self._encode(texts)
        self.waiting: list[list[int]] = []
        self.turn_start, self.turn_end, self.end_of_text = (
            tokenizer.token_to_id(token) for token in (TURN_START, TURN_END, END_OF_TEXT)
        )
        self.assistant = tokenizer.encode("assistant\n").ids

    def _encode(self, texts: Iterator[str]) -> Iterator[list[int]]:
        while chunk := list(islice(texts, TEXTS_AT_ONCE)):
            for encoding in self.tokenizer.encode_batch(chunk):
                if len(encoding.ids) < self.length:
                    yield encoding.ids

    def weights(self, ids: list[int]) -> list[float]:
        """1 for the assistant's words and the end of its turn, and for a text without turns; else PROMPT_WEIGHT."""
        if ids[0] != self.turn_start:
            return [1.0] * len(ids)
        weights, inside, header = [0.0] * len(ids), False, len(self.assistant)
        for index, token in enumerate(ids):
            weights[index] = 1.0 if inside else PROMPT_WEIGHT
            if token == self.turn_end:
                inside = False
            elif index >= header and ids[index - header : index + 1] == [self.turn_start, *self.assistant]:
                inside = True
        return weights

    def _take(self, space: int) -> list[int] | None:
        """The oldest waiting text that fits, with an end-of-text mark; None when none does."""
        while len(self.waiting) < NUM_WAITING:
            self.waiting.append(next(self.encoded))
        for index, ids in enumerate(self.waiting):
            if len(ids) < space:
                del self.waiting[index]
                return ids if ids[-1] == self.end_of_text else [*ids, self.end_of_text]
        return None

    def row(self) -> tuple[list[int], list[int], list[float]]:
        """Ids, following ids and their weights of one row. What stays free is end-of-text."""
        ids: list[int] = []
        weights: list[float] = []
        while text := self._take(self.length - len(ids)):
            ids += text
            weights += self.weights(text)
        free = self.length - len(ids)
        ids += [self.end_of_text] * (free + 1)
        return ids[:-1], ids[1:], [*weights[1:], *([0.0] * (free + 1))]

    def batch(self, num_rows: int) -> Batch:
        ids, targets, weights = zip(*(self.row() for _ in range(num_rows)), strict=True)
        return Batch(torch.tensor(ids), torch.tensor(targets), torch.tensor(weights))
