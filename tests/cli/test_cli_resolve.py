"""MODEL to a folder: bundled, local, or from the hub; and every way in which it can fail, in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from quire.cli.resolve import BUNDLED, BUNDLED_NAME, resolve
from quire.errors import InvalidSetting, StartError


class Hub:
    """Stands in for the hub: remembers how it was asked, answers with a folder or an error."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(self, model: str, **options: Any) -> str:
        self.calls.append((model, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def use(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> Hub:
    hub = Hub(answer)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def http_error(kind: type[Exception]) -> Exception:
    """An error of the hub's library without a real HTTP answer behind it."""
    return kind.__new__(kind)


def test_nothing_is_the_bundled_model() -> None:
    found = resolve(None)
    assert (found.folder, found.name) == (BUNDLED, BUNDLED_NAME)


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    found = resolve(str(folder))
    assert (found.folder, found.name) == (folder, "my-model")


def test_a_folder_that_looks_like_a_hub_id_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org/model").mkdir(parents=True)
    (tmp_path / "org/model/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    hub = use(monkeypatch, tmp_path)
    assert resolve("org/model").name == "model"
    assert not hub.calls


def test_a_hub_id_is_fetched_with_its_revision_and_nothing_that_executes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = use(monkeypatch, tmp_path)
    found = resolve("org/model-1.5", "v2")
    assert (found.folder, found.name) == (tmp_path, "org/model-1.5")
    model, options = hub.calls[0]
    assert (model, options["revision"]) == ("org/model-1.5", "v2")
    from fnmatch import fnmatch

    def wanted(name: str) -> bool:
        allowed = any(fnmatch(name, pattern) for pattern in options["allow_patterns"])
        return allowed and not any(fnmatch(name, pattern) for pattern in options["ignore_patterns"])

    names = ("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json")
    assert all(wanted(name) for name in (*names, "tokenizer.json", "chat_template.jinja", "generation_config.json"))
    refused = ("modeling_x.py", "pytorch_model.bin", "model.pt", "model.pkl", "onnx/model.safetensors", "model.gguf")
    assert not any(wanted(name) for name in (*refused, "consolidated.safetensors", "training_args.bin"))


@pytest.mark.parametrize("model", ["/nowhere/at/all", "nothing-here", "a/b/c", "../x", "-x/y", "org/", "a b/c"])
def test_what_is_neither_folder_nor_id_is_refused_without_asking_the_hub(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hub = use(monkeypatch, tmp_path)
    with pytest.raises(StartError, match="no such model folder"):
        resolve(model)
    assert not hub.calls


def test_a_folder_without_a_config_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(StartError, match="is a file"):
        resolve(str(tmp_path / "model.safetensors"))


def test_a_revision_means_nothing_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for model in (None, str(tmp_path)):
        with pytest.raises(InvalidSetting, match="--revision"):
            resolve(model, "main")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http_error(RepositoryNotFoundError), "no such model on the hub"),
        (http_error(GatedRepoError), "accepted its terms"),
        (LocalEntryNotFoundError("no network"), "could not be fetched"),
        (ConnectionError("reset"), "could not be fetched"),
    ],
)
def test_the_hubs_failures_are_one_sentence(answer: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, answer)
    with pytest.raises(StartError, match=said):
        resolve("org/model")
