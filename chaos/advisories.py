"""What has killed, filled or opened other servers for language models, as payloads for this one.

One row for each class that advisories and bug reports of vLLM, SGLang, llama.cpp, Ollama, TGI and Triton tell of, with
what it did there and which answer is right here. `python -m chaos.advisories_page` writes docs/advisories.md.

Knows: the classes and their payloads. Does not know: how they are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from chaos import payload_fields as fields
from chaos import payload_forms as forms
from chaos import payload_wire as wire
from chaos.entry import ANSWERED, HANGS_UP, Entry, Step


@dataclass(frozen=True, slots=True)
class Advisory:
    """`seen` names advisories or reports, `did` what happened there, `here` the right answer; `right` the outcomes."""

    name: str
    seen: str
    did: str
    here: str
    make: Callable[[], Iterable[Step | tuple[Step, ...]]]
    right: tuple[str, ...] = ("4xx",)
    leave_s: float | None = None

    def entries(self) -> list[Entry]:
        """Every payload of the class."""
        kind = f"advisory:{self.name}"
        return [
            Entry(
                kind,
                tuple(steps) if isinstance(steps, tuple) and not _is_repeat(steps) else (steps,),
                self.right,
                self.leave_s,
            )  # type: ignore[arg-type]
            for steps in self.make()
        ]


def _is_repeat(steps: tuple[object, ...]) -> bool:
    return len(steps) == 2 and isinstance(steps[1], int)


REFUSED = "400 that names the field and its limit"
TABLE: tuple[Advisory, ...] = (
    Advisory(
        "n",
        "vLLM CVE-2026-34756; SGLang pull 36856",
        "a request object for each of n samples: memory gone, loop blocked",
        REFUSED,
        fields.huge_n,
    ),
    Advisory("best_of", "vLLM CVE-2024-8939", "best_of without a limit took the server", REFUSED, fields.huge_best_of),
    Advisory("beams", "beam width is n there", "width times length without a limit", REFUSED, fields.huge_beams),
    Advisory(
        "empty prompt",
        "vLLM CVE-2024-8768",
        "an empty prompt killed the server",
        "400, or an answer where the model begins texts itself",
        fields.empty_prompts,
        ANSWERED,
    ),
    Advisory(
        "token ids",
        "SGLang pull 36856; vLLM reports of ids beyond the vocabulary",
        "ids out of range raised, or read past the end, in the engine",
        REFUSED,
        fields.token_ids,
    ),
    Advisory(
        "logit_bias", "vLLM pull 16529", "an id beyond the vocabulary killed the engine", REFUSED, fields.logit_biases
    ),
    Advisory(
        "logprobs",
        "SGLang pull 36856",
        "top-k larger than the vocabulary raised in the scheduler",
        REFUSED,
        fields.huge_logprobs,
    ),
    Advisory(
        "echo and logprobs",
        "vLLM issues 5890, 6521",
        "echo with logprobs, or with max_tokens 0, killed the engine",
        "an answer, or 400",
        fields.echoes,
        ANSWERED,
    ),
    Advisory(
        "sampling numbers",
        "Triton CVE-2026-24173 (overflow); llama.cpp CVE-2026-21869 (negative)",
        "negative, huge or non-finite numbers reached the kernels",
        REFUSED,
        fields.sampling_numbers,
    ),
    Advisory(
        "penalties and lengths",
        "llama.cpp CVE-2026-21869",
        "a negative count ran a loop out of bounds",
        REFUSED,
        fields.lengths,
        ANSWERED,
    ),
    Advisory(
        "regex bomb",
        "vLLM CVE-2025-48943, issue 17313; ReDoS reports",
        "a pattern that does not compile, or takes for ever, took the server",
        "400, or an answer within the limits of time and states",
        forms.regexes,
        ANSWERED,
    ),
    Advisory(
        "NUL in a regex",
        "SGLang issue 35533",
        "a leading NUL was a segmentation fault",
        "400, or an answer",
        forms.nul_regexes,
        ANSWERED,
    ),
    Advisory(
        "grammar bomb", "llama.cpp issue 26600", "60,000 nested groups ran the stack out", REFUSED, forms.grammars
    ),
    Advisory(
        "grammar with no end",
        "llama.cpp issue 12597",
        "an empty stack of the grammar was an uncaught exception",
        "400, or an answer cut by max_tokens",
        forms.endless_grammars,
        ANSWERED,
    ),
    Advisory(
        "bad schema",
        "vLLM CVE-2025-48942, issue 17248; SGLang issue 4574; TGI issue 2280",
        "a schema that is none took the server",
        "400 that names the field",
        forms.bad_schemas,
        ANSWERED,
    ),
    Advisory(
        "deep schema",
        "the same, by recursion",
        "nesting or $ref in a circle ran the stack out",
        "400, or an answer",
        forms.deep_schemas,
        ANSWERED,
    ),
    Advisory(
        "schema with huge bounds",
        "llama.cpp, {m,n} of grammars",
        "maxLength or maxItems unrolled into states",
        "400, or an answer",
        forms.wide_schemas,
        ANSWERED,
    ),
    Advisory(
        "ever new schemas",
        "vLLM CVE-2025-29770",
        "each kept in a cache on disk until it was full",
        "an answer; the cache is bounded and in memory",
        forms.new_schemas,
        ANSWERED,
    ),
    Advisory(
        "tools",
        "vLLM CVE-2025-48944 (GHSA-vrq3-r879-7m65)",
        "`pattern` and `type` of a tool unchecked: the worker died",
        "400, or an answer",
        forms.tools,
        ANSWERED,
    ),
    Advisory(
        "tool text",
        "vLLM CVE-2025-48887",
        "backtracking over text that looks like a call",
        "an answer; calls are parsed in linear time",
        forms.tool_texts,
        ANSWERED,
    ),
    Advisory(
        "template arguments",
        "vLLM CVE-2025-62426, CVE-2025-61620",
        "chat_template_kwargs overrode how the template is run",
        "400, or an answer with a template that saw only data",
        forms.template_arguments,
        ANSWERED,
    ),
    Advisory(
        "template from a request",
        "SGLang CVE-2026-5760; template injection in general",
        "Jinja from outside ran as code",
        "400: templates come from the operator; braces in a message are text",
        forms.templates,
        ANSWERED,
    ),
    Advisory(
        "embeddings as pickles",
        "vLLM CVE-2025-62164",
        "prompt_embeds were deserialised by torch.load",
        REFUSED,
        fields.embeddings,
    ),
    Advisory(
        "code in a field", "SGLang CVE-2026-7304", "a custom logit processor was unpickled", REFUSED, fields.code_fields
    ),
    Advisory(
        "media",
        "vLLM CVE-2026-22773, CVE-2026-5497",
        "an image of 1x1, a video of thousands of frames",
        REFUSED,
        fields.media,
    ),
    Advisory(
        "fetch",
        "vLLM CVE-2025-6242",
        "the server fetched any address for whoever asked",
        "400 without a fetch",
        fields.fetches,
    ),
    Advisory(
        "model path",
        "Ollama CVE-2024-37032; SGLang CVE-2026-7302; Triton CVE-2026-24208",
        "names with ../ became paths",
        "404 that names what is served",
        fields.model_paths,
    ),
    Advisory(
        "adapter path",
        "vLLM's loading of adapters at run time",
        "a path of the requester's was loaded",
        "400 or 404",
        fields.adapters,
    ),
    Advisory(
        "Host",
        "vLLM CVE-2026-48746",
        "the Host header changed which path was authenticated",
        "401",
        wire.hosts,
        ("401",),
    ),
    Advisory(
        "method and path tricks",
        "the same class",
        "a path written otherwise passed the check",
        "401 before anything else",
        wire.open_paths,
        ("401", "4xx", "closed"),
    ),
    Advisory(
        "huge head",
        "vLLM CVE-2025-48956",
        "headers without a limit filled memory",
        "refused or hung up on",
        wire.huge_heads,
        ("4xx", "closed"),
    ),
    Advisory(
        "chunks",
        "Triton CVE-2025-23310, CVE-2025-23311",
        "each tiny chunk took stack until there was none",
        "an answer, or 413",
        wire.tiny_chunks,
        HANGS_UP,
    ),
    Advisory(
        "huge body",
        "Triton CVE-2025-33201",
        "a payload far above what is usual ended the server",
        "413",
        wire.huge_bodies,
        ("4xx", "closed"),
    ),
    Advisory(
        "compressed body",
        "bombs in general",
        "small on the wire, gigabytes when unpacked",
        "400: nothing is unpacked",
        wire.compressed,
    ),
    Advisory(
        "many outputs", "Triton CVE-2026-24146", "a count of outputs allocated unchecked", REFUSED, fields.many_prompts
    ),
    Advisory(
        "stop strings",
        "a class of its own",
        "a million strings, or one of a megabyte, searched at every token",
        REFUSED,
        fields.stops,
    ),
    Advisory(
        "lists of ids",
        "the same",
        "bad words, allow-lists, stop ids without a limit",
        REFUSED,
        fields.id_lists,
        ANSWERED,
    ),
    Advisory("deep JSON", "parsers in general", "nesting ran the stack out", "400", wire.deep_json),
    Advisory("big numbers", "CVE-2020-10735 of Python", "digits converted in quadratic time", "400", wire.big_numbers),
    Advisory(
        "keys twice",
        "parsers that differ",
        "a proxy reads one value and the server another",
        "400 that names the key",
        wire.double_keys,
    ),
    Advisory(
        "many keys",
        "hash collisions; difflib over long names",
        "each unknown name costs",
        "400 at the first",
        wire.many_keys,
    ),
    Advisory(
        "quadratic text",
        "tokenizers' worst cases",
        "one long word took minutes",
        "400 by length, or an answer that holds nobody else up",
        wire.long_words,
        ANSWERED,
    ),
    Advisory(
        "context overflow", "llama.cpp b8330", "three requests over the context ended the server", "400", wire.too_long
    ),
    Advisory(
        "special tokens in text",
        "prompt injection by control tokens; vLLM issue 4772",
        "text became control tokens",
        "an answer",
        wire.special_texts,
        ANSWERED,
    ),
    Advisory(
        "cache poison",
        "vLLM CVE-2025-25183, CVE-2025-46570",
        "prefix hashes collided; times told of others' prompts",
        "an answer; hashes are SHA-256, and each key has its own",
        wire.salts,
        ANSWERED,
    ),
    Advisory(
        "labels and logs",
        "metric labels, log lines",
        "a name from a request became a label or a second log line",
        "401, 4xx; never a label",
        wire.labels,
        ("4xx", "200", "closed"),
    ),
    Advisory(
        "streams left",
        "disconnects that leak, in all of them",
        "work went on for nobody",
        "an end within a step",
        wire.left_streams,
        ANSWERED,
        0.05,
    ),
    Advisory(
        "many choices",
        "guided_choice without a limit",
        "a grammar of all of them",
        "400, or an answer",
        forms.choices,
        ANSWERED,
    ),
    Advisory(
        "structural tags",
        "the youngest of the forms",
        "triggers and ends unchecked",
        "400, or an answer",
        forms.structural_tags,
        ANSWERED,
    ),
)


def all_entries(rng: Random) -> list[Entry]:
    """Every payload of every class, one of each class first, in an order of `rng`."""
    classes = [row.entries() for row in TABLE]
    first = [found.pop(rng.randrange(len(found))) for found in classes]
    rest = [entry for found in classes for entry in found]
    rng.shuffle(first)
    rng.shuffle(rest)
    return first + rest
