"""Scores per skill on held-out questions: `python -m training.evaluate [folder]` prints a table.

Knows the questions and their checks; knows nothing about training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from training import mixture
from training.card import write_card
from training.chat import TURN_END, render
from training.checkpoint import load_model, load_tokenizer
from training.conversation import HeldOut, Message, user
from training.generate import answer_all
from training.skills import about_quire, arithmetic, dialogue, json_filling, stories
from training.train import BUNDLED
from training.words import made_up

LONG_PROMPT_TOKENS = 3000
SEED = 20_001
HEADER = "| skill | questions | right | stopped by itself |\n|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Score:
    """How many of the questions were answered right, and how many answers ended by themselves."""

    skill: str
    num_questions: int
    num_right: int
    num_stopped: int
    wrong: list[tuple[str, str, str]]  # question, answer, a right answer

    def line(self) -> str:
        right, stopped = (100 * count / self.num_questions for count in (self.num_right, self.num_stopped))
        return f"| {self.skill} | {self.num_questions} | {right:.1f} % | {stopped:.1f} % |"


class Judge:
    """A model with its tokenizer, asked greedily."""

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder).eval()
        self.tokenizer = load_tokenizer(folder)
        self.stop = self.tokenizer.token_to_id(TURN_END)

    def prompt(self, question: HeldOut) -> list[int]:
        text = render(question.messages, question.tools, add_generation_prompt=True)
        return list(self.tokenizer.encode(text).ids)

    def score(self, skill: str, questions: list[HeldOut], limit: int = 400) -> Score:
        answers = answer_all(self.model, [self.prompt(question) for question in questions], self.stop, limit)
        texts = [self.tokenizer.decode(answer.ids, skip_special_tokens=False) for answer in answers]
        wrong = [
            (str(question.messages[-1]["content"]), text, question.right)
            for question, text in zip(questions, texts, strict=True)
            if not question.check(text)
        ]
        num_stopped = sum(answer.stopped for answer in answers)
        return Score(skill, len(questions), len(questions) - len(wrong), num_stopped, wrong)


def _filler(judge: Judge, rng: Random) -> list[Message]:
    """About 3000 tokens of other talk."""
    messages: list[Message] = []
    num_tokens = 0
    while num_tokens < LONG_PROMPT_TOKENS:
        skill = rng.choice((stories, stories, about_quire, dialogue, arithmetic))
        part = [message for message in skill.train(rng).messages if message["role"] != "system"]
        messages += part
        num_tokens += len(judge.tokenizer.encode(render(part)).ids)
    return messages


def _after_long_talk(judge: Judge, rng: Random, skill: Callable[[Random], HeldOut]) -> HeldOut:
    question = skill(rng)
    return HeldOut((*_filler(judge, rng), *question.messages), question.right, question.check, question.tools)


def _recall(judge: Judge, rng: Random) -> HeldOut:
    """A made-up name, told 3000 tokens before it is asked for."""
    name = made_up(rng)
    right = f"Your name is {name}."
    told, reply = dialogue.name_told(name, rng).messages
    talk = [message for message in _filler(judge, rng) if "name" not in message["content"]]
    messages = (told, reply, *talk, user("What is my name?"))
    return HeldOut(messages, right, lambda answer: name in answer)


def evaluate(folder: Path, num_questions: int) -> list[Score]:
    """A score for each skill, then those after 3000 tokens of other talk."""
    torch.manual_seed(SEED)
    judge = Judge(folder)
    scores = []
    for name, skill in mixture.SKILLS.items():
        rng = Random(SEED)
        scores.append(judge.score(name, [skill.held_out(rng) for _ in range(num_questions)]))
        print(scores[-1].line(), flush=True)
    num_long = max(1, num_questions // 10)
    rng = Random(SEED)
    for skill in (arithmetic, json_filling, about_quire):
        name = f"{skill.__name__.rpartition('.')[2]} after 3000 tokens"
        scores.append(judge.score(name, [_after_long_talk(judge, rng, skill.held_out) for _ in range(num_long)]))
        print(scores[-1].line(), flush=True)
    scores.append(judge.score("a name told 3000 tokens before", [_recall(judge, rng) for _ in range(num_long)], 60))
    print(scores[-1].line(), flush=True)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--questions", type=int, default=200, help="questions a skill")
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print a skill")
    parser.add_argument("--card", action="store_true", help="write the figures into the folder's README.md")
    arguments = parser.parse_args()
    print(HEADER)
    scores = evaluate(arguments.folder, arguments.questions)
    if arguments.card:
        table = "\n".join([HEADER, *(score.line() for score in scores)])
        write_card(arguments.folder, load_model(arguments.folder), table)
    for score in scores:
        for question, answer, right in score.wrong[: arguments.show]:
            print(f"\n{score.skill}\n  asked  {question}\n  said   {answer}\n  right  {right}")


if __name__ == "__main__":
    main()
