"""Trains the bundled model from nothing: `python -m training.train` writes `quire/bundled/` anew.

Knows the schedule; knows no skill. Everything is seeded and bounded by steps, never by time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Batch, Packer
from training.checkpoint import save_model
from training.circuits import install_copying
from training.mixture import long_texts, texts
from training.model import Llama, Shape, initialise
from training.muon import Muon
from training.tokenizer import save_tokenizer, train_tokenizer

REPORT_STEPS = 20
BUNDLED = Path(__file__).parents[1] / "quire" / "bundled"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Flat steps, then steps whose rate falls to zero. Of the falling ones every `long_every`-th reads one long row."""

    num_flat_steps: int = 700
    num_falling_steps: int = 1500
    num_rows: int = 3
    row_length: int = 704
    long_every: int = 30
    long_length: int = 3456
    warmup_steps: int = 20
    matrix_rate: float = 0.02
    embedding_rate: float = 0.002
    seed: int = 7
    num_threads: int = 2

    @property
    def num_steps(self) -> int:
        return self.num_flat_steps + self.num_falling_steps

    @property
    def num_tokens(self) -> int:
        num_long = sum(self.is_long(step) for step in range(self.num_steps))
        return num_long * self.long_length + (self.num_steps - num_long) * self.num_rows * self.row_length

    def rate(self, step: int) -> float:
        """The factor of both learning rates at this step."""
        falling = (self.num_steps - step) / self.num_falling_steps
        return min((step + 1) / self.warmup_steps, 1.0, falling)

    def is_long(self, step: int) -> bool:
        return step >= self.num_flat_steps and (step - self.num_flat_steps) % self.long_every == 0


def loss_of(model: Llama, batch: Batch) -> tuple[Tensor, float]:
    """Weighted mean cross entropy, and the plain mean over the answers. The head skips what has no weight."""
    wanted = batch.weights_BT > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden_BTD = model(batch.ids_BT)
        logits_NV = model.head(hidden_BTD[wanted])
    losses_N = F.cross_entropy(logits_NV.float(), batch.targets_BT[wanted], reduction="none")
    weights_N = batch.weights_BT[wanted]
    answers = losses_N.detach()[weights_N == 1].mean().item()
    return (losses_N * weights_N).sum() / weights_N.sum(), answers


def batches(schedule: Schedule, tokenizer: Tokenizer) -> Iterator[Batch]:
    """One batch a step."""
    short = Packer(tokenizer, texts(schedule.seed + 1), schedule.row_length)
    long = Packer(tokenizer, long_texts(schedule.seed + 2), schedule.long_length)
    for step in range(schedule.num_steps):
        yield long.batch(1) if schedule.is_long(step) else short.batch(schedule.num_rows)


class Trainer:
    """The model, its two optimisers and how far they are; can be put away and taken up again."""

    def __init__(self, schedule: Schedule) -> None:
        torch.manual_seed(schedule.seed)
        torch.set_num_threads(schedule.num_threads)
        self.schedule = schedule
        self.model = Llama(Shape())
        initialise(self.model, schedule.seed)
        install_copying(self.model, schedule.seed)
        named = list(self.model.named_parameters())
        is_matrix = {name: parameter.ndim == 2 and "embed" not in name for name, parameter in named}
        self.muon = Muon([parameter for name, parameter in named if is_matrix[name]])
        others = [parameter for name, parameter in named if not is_matrix[name]]
        self.adam = torch.optim.AdamW(others, lr=schedule.embedding_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.next_step = 0
        self.num_tokens = 0

    def step(self, batch: Batch) -> float:
        """Learns from one batch; returns the loss of the answers."""
        loss, answers = loss_of(self.model, batch)
        loss.backward()
        rate = self.schedule.rate(self.next_step)
        self.muon.step(self.schedule.matrix_rate * rate)
        self.adam.param_groups[0]["lr"] = self.schedule.embedding_rate * rate
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.next_step += 1
        self.num_tokens += batch.ids_BT.numel()
        return answers

    def state(self) -> dict[str, Any]:
        averages = [average for _, average in self.muon.groups]
        return {
            "model": self.model.state_dict(),
            "muon": averages,
            "adam": self.adam.state_dict(),
            "next_step": self.next_step,
            "num_tokens": self.num_tokens,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        for (_, average), saved in zip(self.muon.groups, state["muon"], strict=True):
            average.copy_(saved)
        self.next_step, self.num_tokens = state["next_step"], state["num_tokens"]


def train(schedule: Schedule, tokenizer: Tokenizer, checkpoint: Path | None) -> Llama:
    """All steps; with `checkpoint`, goes on from that file and keeps it up to date."""
    trainer = Trainer(schedule)
    if checkpoint and checkpoint.exists():
        trainer.restore(torch.load(checkpoint))
    print(f"{trainer.model.num_parameters():,} parameters, {schedule.num_steps} steps", flush=True)
    started, tokens_before, losses = time.perf_counter(), trainer.num_tokens, []
    for batch in islice(batches(schedule, tokenizer), trainer.next_step, None):
        losses.append(trainer.step(batch))
        if trainer.next_step % REPORT_STEPS == 0:
            seconds = time.perf_counter() - started
            speed = (trainer.num_tokens - tokens_before) / seconds
            recent = sum(losses[-REPORT_STEPS:]) / len(losses[-REPORT_STEPS:])
            print(
                f"step {trainer.next_step:5d}  loss {recent:.4f}  {trainer.num_tokens:,} tokens  "
                f"{seconds:.0f} s  {speed:.0f} tokens/s",
                flush=True,
            )
            if checkpoint:
                torch.save(trainer.state(), checkpoint)
    return trainer.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder to write")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from and to keep")
    parser.add_argument("--flat-steps", type=int, default=Schedule().num_flat_steps)
    parser.add_argument("--falling-steps", type=int, default=Schedule().num_falling_steps)
    arguments = parser.parse_args()
    schedule = Schedule(num_flat_steps=arguments.flat_steps, num_falling_steps=arguments.falling_steps)
    tokenizer = train_tokenizer(schedule.seed)
    save_tokenizer(tokenizer, arguments.out)
    save_model(train(schedule, tokenizer, arguments.checkpoint), tokenizer, arguments.out)


if __name__ == "__main__":
    main()
