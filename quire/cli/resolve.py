"""MODEL on the command line to a folder on this disk: nothing, a folder, or a hub id.

Knows: the bundled model's place and `huggingface_hub`. Does not know: what is in the folder. This is the only part of
quire that fetches a model, and it does so before any engine starts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quire.errors import InvalidSetting, StartError

BUNDLED = Path(__file__).parent.parent / "bundled"
BUNDLED_NAME = "quire-mini"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What a model needs and no more: weights that cannot execute, and text.
WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")
UNWANTED = ("*/*", "consolidated*.safetensors")


@dataclass(frozen=True, slots=True)
class Found:
    """A model's folder, and the name that it has in the API unless told otherwise."""

    folder: Path
    name: str


def resolve(model: str | None, revision: str | None = None) -> Found:
    """Folder of `model`: bundled (None), local, or fetched from the hub. Raises `StartError` with what to do."""
    if model is None:
        return _bundled(revision)
    path = Path(model).expanduser()
    if path.is_dir():
        return _local(path, revision)
    if path.exists():
        raise StartError(
            "MODEL is a file",
            got=model,
            allowed="a folder, or a hub id",
            hint="Name the folder that holds config.json.",
        )
    if not HUB_ID.fullmatch(model):
        raise StartError(
            "there is no such model folder",
            got=model,
            allowed="a folder that holds config.json, or a hub id such as Qwen/Qwen3-0.6B",
        )
    return Found(fetch(model, revision), model)


def fetch(model: str, revision: str | None) -> Path:
    """The hub's snapshot of `model`, in the hub's own cache; a broken download is taken up where it ended."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
        )
    except GatedRepoError:
        raise StartError(
            "the hub gives this model only to accounts that accepted its terms",
            got=model,
            hint="Accept them on its page, then log in with `hf auth login`.",
        ) from None
    except RevisionNotFoundError:
        raise StartError("the model has no such revision on the hub", got=revision) from None
    except RepositoryNotFoundError:
        raise StartError(
            "there is no such folder here and no such model on the hub", got=model, hint="Check the spelling."
        ) from None
    except (OSError, ValueError, RuntimeError) as problem:
        raise StartError(
            "the model could not be fetched from the hub",
            got=f"{model}: {type(problem).__name__}",
            hint="Check the network and run again (what has arrived is kept), or name a local folder.",
        ) from problem
    return Path(folder)


def _local(folder: Path, revision: str | None) -> Found:
    if revision is not None:
        raise InvalidSetting("--revision has no meaning for a folder", got=revision, allowed="only with a hub id")
    if not (folder / "config.json").is_file():
        raise StartError("the model folder holds no config.json", got=str(folder))
    return Found(folder, folder.resolve().name)


def _bundled(revision: str | None) -> Found:
    if not (BUNDLED / "config.json").is_file():
        raise StartError("this installation comes without the bundled model", hint="Name a MODEL.")
    return Found(_local(BUNDLED, revision).folder, BUNDLED_NAME)
