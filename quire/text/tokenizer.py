"""Text to ids and back, and what every token of the vocabulary stands for in bytes.

The library behind it is `tokenizers`; tokenizer.json is read exactly as it is written, tokenizer_config.json and
special_tokens_map.json may add tokens and say which ones are special.

Knows: one vocabulary. Does not know: prompts, streams (`detokenizer.py`), chat messages (`template.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from quire.errors import BrokenCheckpoint, RequestError
from quire.text.bytes_per_id import most_bytes_per_id
from quire.text.decoders import CLEAN_UP, DecoderChain, build_chain, piece_bytes
from quire.text.folder import SpecialTokens, read_json, read_special_tokens

LONG_CHARACTERS = 4096  # below, the library's shorter way is quicker: 8 us beside 28 us for a few words


class Tokenizer:
    """One vocabulary. Immutable after construction; safe to share between streams and threads.

    vocab_size: number of ids including added tokens. special_ids: ids that decoding may skip.
    bos_id, eos_id: None where the folder names none. named: `bos_token`, `eos_token`, ... to their texts. digest:
    SHA-256 (hex) of all that was read, "" for one that was not read from a folder.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, specials: SpecialTokens, config: Mapping[str, Any], digest: str = ""
    ) -> None:
        self._backend = backend
        self.digest = digest
        backend.no_truncation()
        backend.no_padding()
        _add_tokens(backend, specials)
        self._decoder_spec: dict[str, Any] | None = (
            json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else None
        )
        # transformers leaves BPE text alone whatever the folder says: the clean-up was made for WordPiece.
        self._clean_up = specials.clean_up_spaces and type(backend.model).__name__ != "BPE"
        self.named = dict(specials.named)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.bos_id = self._named_id("bos", config)
        self.eos_id = self._named_id("eos", config)
        self.new_chain()

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Reads tokenizer.json and its companions; BrokenCheckpoint names what is missing or malformed."""
        folder = Path(path)
        data = _read_bytes(folder / "tokenizer.json")
        specials, config = read_special_tokens(folder), read_json(folder, "config.json")
        rest = json.dumps([asdict(specials), config.get("bos_token_id"), config.get("eos_token_id")], sort_keys=True)
        digest = hashlib.sha256(data + rest.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(_load_backend(folder / "tokenizer.json", data), specials, config, digest)

    def encode(self, text: str, add_special_tokens: bool = True, param: str = "prompt") -> list[int]:
        """Ids of `text`; special tokens spelled out in it count as such, as in transformers.

        RequestError (naming `param`) for a lone surrogate. Text rendered by a chat template wants
        `add_special_tokens=False`: the template has written its own BOS. A text that has one and would get a second
        is refused: no model was trained on that.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            got = f"U+{ord(text[error.start]):04X} at character {error.start}"
            what = "the text holds a lone surrogate"
            raise RequestError(what, got=got, allowed="Unicode text", param=param) from None
        ids = self._ids(text, add_special_tokens)
        if add_special_tokens and self.bos_id is not None and ids[:2] == [self.bos_id] * 2:
            self._check_bos(text, param)
        return ids

    def least_ids(self, text: str) -> int:
        """`encode` gives no fewer; told at once, however long the text, and 0 where nothing can be told."""
        most = self._most_bytes_per_id
        return 0 if most is None else len(text.encode("utf-8", "replace")) // most

    @cached_property
    def _most_bytes_per_id(self) -> int | None:
        return most_bytes_per_id(self._backend)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`; ids without a token are left out, bytes that are not UTF-8 become U+FFFD."""
        # Skipping happens here, since the library overlooks special tokens that its normalizer has rewritten.
        kept = [token_id for token_id in ids if not (skip_special_tokens and token_id in self.special_ids)]
        text: str = self._backend.decode(kept, skip_special_tokens=False)
        if self._clean_up:
            for old, new in CLEAN_UP:
                text = text.replace(old, new)
        return text

    def piece(self, token_id: int) -> str | None:
        """The vocabulary's own spelling (`Ġworld`, `▁world`, `<0x0A>`), None for an id without a token."""
        found: str | None = self._backend.id_to_token(token_id)
        return found

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes this token adds in the middle of a text; b"" for an id without a token."""
        piece = self.piece(token_id)
        return b"" if piece is None else piece_bytes(piece, self._decoder_spec)

    def token_text(self, token_id: int) -> str:
        """`token_bytes` as text, bytes that are no whole character as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def id_of(self, text: str) -> int | None:
        """The id whose spelling in the vocabulary is exactly `text` (`<|im_end|>`), None when there is none."""
        found: int | None = self._backend.token_to_id(text)
        return found

    @property
    def special_texts(self) -> frozenset[str]:
        """The spellings of all special tokens."""
        return frozenset([text for token_id in self.special_ids if (text := self.piece(token_id)) is not None])

    @property
    def puts_spaces(self) -> bool:
        """Whether a space stands between any two tokens: so it is where tokenizer.json has no decoder."""
        return self._decoder_spec is None

    def new_chain(self) -> DecoderChain:
        """A decoder at the start of a text, for one stream; UnsupportedModel when its steps cannot be streamed."""
        return build_chain(self._decoder_spec, self._clean_up)

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        """The library's `encode` holds the interpreter's lock to its end: 5 s for 3 MB; batches let others run."""
        if len(text) < LONG_CHARACTERS:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        return list(self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)

    def _check_bos(self, text: str, param: str) -> None:
        """Two BOS at the start are an error where the text did not hold both."""
        own = self._ids(text, add_special_tokens=False)
        if own[:2] != [self.bos_id] * 2:
            raise RequestError(
                "the text begins with the BOS token, and encoding adds another",
                got=text[:32],
                hint="Leave it out, or send add_special_tokens=false.",
                param=param,
            )

    def _named_id(self, name: str, config: Mapping[str, Any]) -> int | None:
        """The token that the tokenizer's files name, else the (first) id that config.json gives."""
        text = self.named.get(f"{name}_token")
        if text is not None:
            return self.id_of(text)
        value = config.get(f"{name}_token_id")
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        hint = "A model folder needs the tokenizer.json of the tokenizers library."
        raise BrokenCheckpoint(f"{path} is missing", hint=hint) from None
    except OSError as error:
        raise BrokenCheckpoint(f"{path} cannot be read", got=type(error).__name__) from error


def _load_backend(path: Path, data: bytes) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception or ValueError, by version
        raise BrokenCheckpoint(f"{path} is not a valid tokenizer.json", got=str(error)) from error


def _add_tokens(backend: tokenizers.Tokenizer, specials: SpecialTokens) -> None:
    """Adds what the folder's other files name and tokenizer.json lacks, and marks named tokens as special."""
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for spec in specials.added:
        if spec.content not in known:
            known[spec.content] = _added_token(spec, special=spec.special)
            backend.add_tokens([known[spec.content]])
    for spec in specials.marked:
        token = known.get(spec.content)
        if token is None or not token.special:
            known[spec.content] = _added_token(token or spec, special=True)
            backend.add_special_tokens([known[spec.content]])


def _added_token(like: Any, special: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        like.content,
        single_word=like.single_word,
        lstrip=like.lstrip,
        rstrip=like.rstrip,
        normalized=like.normalized,
        special=special,
    )
