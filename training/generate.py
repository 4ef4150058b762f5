"""Greedy decoding for the evaluation: torch only, rows of one prompt length together, a cache of keys and values.

Knows token ids; knows no skill.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch

from training.model import Llama

MAX_ROWS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """The ids written, without the end of turn, and whether the model ended by itself."""

    ids: list[int]
    stopped: bool


@torch.inference_mode()
def _answer_rows(model: Llama, prompts: list[list[int]], stop: int, limit: int) -> list[Answer]:
    cache: list[list[torch.Tensor]] = [[] for _ in model.layers]
    written: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    ids_BT = torch.tensor(prompts)
    for _ in range(limit):
        next_B = model.head(model(ids_BT, cache)[:, -1]).argmax(dim=-1)
        for row, token in enumerate(next_B.tolist()):
            done[row] = done[row] or token == stop
            if not done[row]:
                written[row].append(token)
        if all(done):
            break
        ids_BT = next_B[:, None]
    return [Answer(ids, ended) for ids, ended in zip(written, done, strict=True)]


def answer_all(model: Llama, prompts: list[list[int]], stop: int, limit: int) -> list[Answer]:
    """One answer a prompt, in the order of the prompts."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    answers: dict[int, Answer] = {}
    for indices in by_length.values():
        for start in range(0, len(indices), MAX_ROWS):
            rows = indices[start : start + MAX_ROWS]
            found = _answer_rows(model, [prompts[index] for index in rows], stop, limit)
            answers.update(zip(rows, found, strict=True))
    return [answers[index] for index in range(len(prompts))]
