"""`quire chat`: a conversation in the terminal, or through pipes.

Knows: turns, commands and the history. Does not know: how an answer is made, or how long the context is (it is told).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from quire.cli.asking import Message, Overrides, check_template, conversation, load, sampling, stream
from quire.cli.prepare import describe, prepare
from quire.errors import ContextLengthExceeded, RequestError
from quire.llm import LLM
from quire.request import Finish, SamplingParams
from quire.settings import EngineSettings

COMMANDS = {
    "/help": "this list",
    "/reset": "forget the conversation",
    "/system TEXT": "set the system message and begin anew; without TEXT, remove it",
    "/temperature X": "0 to 2",
    "/save FILE": "write the conversation as JSON",
    "/exit": "leave (so does the end of input)",
}
NAMES = tuple(line.split()[0] for line in COMMANDS)


@dataclass(slots=True)
class Chat:
    """One conversation. `write` gets the model's text, `say` what the program has to tell."""

    llm: LLM
    name: str
    params: SamplingParams
    write: Callable[[str], None]
    say: Callable[[str], None]
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    is_open: bool = True
    saved: set[Path] = field(default_factory=set)

    def take(self, line: str) -> None:
        """One line from the person: a command, a message, or nothing."""
        text = line.strip()
        if text.startswith("/"):
            name, _, rest = text.partition(" ")
            self._obey(name, rest.strip())
        elif text:
            self._answer(text)

    def _answer(self, text: str) -> None:
        """One turn. Ctrl-C ends the answer, not the conversation; what was said so far stays in it."""
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            self.write(piece)

        asked = conversation(text, self.system, self.messages)
        ending = ""
        try:
            output = stream(self.llm, self.llm.chat_prompt(asked), self.params, show)
            if output.outputs[0].finish_reason == Finish.LENGTH.value:
                ending = self._why_cut(len(output.prompt_token_ids) + len(output.outputs[0].token_ids))
        except KeyboardInterrupt:
            ending = "[interrupted]"
        except ContextLengthExceeded as problem:
            self.say(f"[the context is full: {problem.message} Nothing was sent; /reset begins anew]")
            return
        except RequestError as problem:
            self.say(f"[{problem.message}]")
            return
        self.write("\n")
        if ending:
            self.say(ending)
        reply = {"role": "assistant", "content": "".join(pieces)}
        self.messages += [{"role": "user", "content": text}, reply]

    def _why_cut(self, num_tokens: int) -> str:
        if num_tokens >= self.llm.plan.max_model_len:
            return f"[the context is full: {num_tokens:,} tokens; /reset begins anew]"
        return f"[cut at --max-tokens {self.params.max_tokens}]"

    def _obey(self, name: str, rest: str) -> None:
        if name == "/help":
            self.say("\n".join(f"{usage:<16} {meaning}" for usage, meaning in COMMANDS.items()))
        elif name == "/reset":
            self._begin_anew()
        elif name == "/system":
            self.system = rest or None
            self._begin_anew()
        elif name == "/temperature":
            self._set_temperature(rest)
        elif name == "/save":
            self._save(rest)
        elif name == "/exit":
            self.is_open = False
        else:
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.3)
            self.say(f"[there is no {name}{f'; did you mean {near[0]}?' if near else ''} /help lists what there is]")

    def _begin_anew(self) -> None:
        self.messages.clear()
        self.say("[a new conversation]")

    def _set_temperature(self, text: str) -> None:
        try:
            self.params = replace(self.params, temperature=float(text))
        except ValueError:
            self.say(f"[/temperature takes a number from 0 to 2; got {text or 'nothing'}]")
        except RequestError as problem:
            self.say(f"[{problem.message}]")

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        if not name:
            self.say("[/save takes the name of a file]")
        elif path.exists() and path not in self.saved:
            self.say(f"[there is a {name} already; take another name]")
        else:
            try:
                path.write_text(json.dumps(self._transcript(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            except OSError as problem:
                self.say(f"[{name} cannot be written: {problem.strerror}]")
                return
            self.saved.add(path)
            self.say(f"[saved {len(self.messages)} messages to {name}]")

    def _transcript(self) -> dict[str, object]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return {"model": self.name, "messages": [*first, *self.messages]}


def chat(
    model: str | None, revision: str | None, settings: EngineSettings, overrides: Overrides, system: str | None
) -> None:
    """Load the model and talk until /exit or the end of input."""
    prepared = prepare(model, revision, settings)
    _say(f"{describe(prepared)[0].removeprefix('model').strip()}; /help lists the commands")
    llm = load(prepared, settings)
    check_template(llm, "Use `quire run --raw` to continue a text.")
    talk = Chat(llm, prepared.name, sampling(llm, overrides), _write, _say, system)
    for line in lines(sys.stdin.isatty()):
        talk.take(line)
        if not talk.is_open:
            break
    llm.close()


def lines(is_terminal: bool) -> Iterator[str]:
    """What the person types, line by line, until the end of input. Ctrl-C at the prompt drops the line."""
    if not is_terminal:
        yield from sys.stdin
        return
    import readline  # noqa: F401 - importing it gives `input` editing and history

    while True:
        try:
            yield input("> ")
        except EOFError:
            _say("")
            return
        except KeyboardInterrupt:
            _say("\n[/exit or Ctrl-D leaves]")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
