"""`quire doctor`: what was decided, what was chosen and why, what it costs, and whether it works.

Knows: the plan, the device's reasons, versions. Does not know: how to mend anything.
"""

from __future__ import annotations

import json
import platform
import resource
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from quire import __version__
from quire.cli.asking import conversation, load, sampling, stream
from quire.cli.folder_receipt import folder_receipt
from quire.cli.prepare import Prepared, describe, prepare, size
from quire.errors import QuireError, RequestError
from quire.llm import LLM, Prompt
from quire.ops.device import available_isas
from quire.plan import RUNTIME_BYTES, Plan
from quire.receipt import Receipt
from quire.server.receipts import fingerprint as fingerprint_of
from quire.settings import EngineSettings

GPU_LIBRARIES = ("torch", "triton", "flashinfer-python")  # told where the device is not the CPU
LIBRARIES = ("numpy", "tokenizers", "jinja2", "msgspec", "pydantic", "starlette", "uvicorn", "huggingface-hub")
QUESTION = "Hello! Who are you?"
CHECK_TOKENS = 48
NOT_LISTED = ("model", "precision", "head_precision", "weights", "kv_bytes", "activation_bytes")  # told elsewhere


def doctor(model: str | None, revision: str | None, settings: EngineSettings, as_json: bool) -> int:
    """Print the report; 0 if the model answers, 1 if it does not. Raises `StartError` where there is no plan."""
    prepared = prepare(model, revision, settings)
    llm = load(prepared, settings)
    report = examine(prepared, llm)
    llm.close()
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join([*describe(prepared), *_lines(report)]))
    return 0 if report["check"]["ok"] else 1


def examine(prepared: Prepared, llm: LLM) -> dict[str, Any]:
    """The whole report as one JSON object."""
    chosen, hardware = prepared.plan, prepared.hardware
    return {
        "model": prepared.name,
        "folder": str(prepared.folder),
        "plan": {name: getattr(chosen, name) for name in chosen.__slots__ if name not in NOT_LISTED},
        "weights": weights(chosen),
        "hardware": {
            "cpu_model": hardware.cpu_model,
            "cores": hardware.num_cores,
            "memory_total_bytes": hardware.memory_total_bytes,
            "memory_available_bytes": hardware.memory_available_bytes,
            "accelerators": [asdict(each) for each in hardware.accelerators],
            "missing_for_gpu": list(hardware.missing_extra),
        },
        "device": chosen.device,
        "isa": {"chosen": llm.device.isa, "available": available_isas()},
        "kernels": [{"op": op, "kernel": kernel, "why": why} for op, kernel, why in llm.device.explain()],
        "notes": llm.notes,
        "receipt": dict((llm.receipt | folder_receipt(prepared.folder)).parts),
        "check": check(llm),
        "memory": memory(prepared),
        "versions": versions(LIBRARIES if chosen.device == "cpu" else LIBRARIES + GPU_LIBRARIES),
    }


def weights(chosen: Plan) -> dict[str, Any]:
    """How the weights are stored, their bytes by part, and the bytes that one token reads."""
    return {
        "layers": str(chosen.precision),
        "embedding_and_head": str(chosen.head_precision),
        "layers_bytes": chosen.weights.layers,
        "embedding_and_head_bytes": chosen.weights.embeddings,
        "norms_and_biases_bytes": chosen.weights.vectors,
        "read_per_token_bytes": chosen.weights.per_token,
    }


def memory(prepared: Prepared) -> dict[str, int]:
    """Bytes by part as planned (the KV cache is touched only as it fills), and what this process held at most."""
    chosen = prepared.plan
    return {
        "weights_bytes": chosen.weights.total,
        "kv_cache_bytes": chosen.kv_bytes,
        "activations_bytes": chosen.activation_bytes,
        "runtime_bytes": RUNTIME_BYTES,
        "planned_bytes": chosen.total_bytes,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def check(llm: LLM) -> dict[str, Any]:
    """Ask the model something, twice and greedily: there must be an answer, and the same one."""
    params = sampling(llm, (CHECK_TOKENS, 0.0, 0))
    try:
        prompt = _prompt(llm)
        answers = [stream(llm, prompt, params, lambda piece: None).outputs[0] for _ in range(2)]
    except QuireError as problem:
        return {"ok": False, "why": problem.message}
    first, second = answers
    ok = bool(first.token_ids) and first.token_ids == second.token_ids
    why = "the same answer twice" if ok else "no answer" if not first.token_ids else "two different answers"
    return {"ok": ok, "why": why, "question": QUESTION, "answer": first.text, "tokens": len(first.token_ids)}


def versions(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """quire's, Python's, and those of the libraries that matter."""
    found = {"quire": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _prompt(llm: LLM) -> Prompt:
    """By the chat template; a model without one continues the bare text."""
    try:
        return llm.chat_prompt(conversation(QUESTION, None))
    except RequestError:
        return QUESTION


def _lines(report: dict[str, Any]) -> list[str]:
    isa, held, asked = report["isa"], report["memory"], report["check"]
    lines = [f"device   {report['device']}: {_gpus(report['hardware'])}"]
    lines.append(f"kernels  {isa['chosen']} (this machine has {', '.join(isa['available'])})")
    lines += [f"           {row['op']:<18} {row['kernel']:<42} {row['why']}" for row in report["kernels"]]
    lines.append(f"resident {size(held['peak_resident_bytes'])} at most, of {size(held['planned_bytes'])} planned")
    lines.append("versions " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()))
    fingerprint = fingerprint_of(__version__, Receipt.of(report["receipt"]))
    lines.append(f"receipt  {fingerprint}, a digest of all that the bits of an answer depend on")
    lines += [f"           {name:<18} {value}" for name, value in report["receipt"].items()]
    lines.append(f"check    {'ok' if asked['ok'] else 'FAILED'}: {asked['why']}")
    if asked.get("answer"):
        lines.append(f"           {QUESTION!r} -> {asked['answer']!r}")
    return lines


def _gpus(hardware: dict[str, Any]) -> str:
    """The GPUs there are, and whether they could be used."""
    if not hardware["accelerators"]:
        return "no NVIDIA GPU here"
    found = [f"{gpu['name']}, {size(gpu['memory_total_bytes'])}, driver {gpu['driver']}"
             for gpu in hardware["accelerators"]]  # fmt: skip
    missing = hardware["missing_for_gpu"]
    return "; ".join(found) + (f"; for it {', '.join(missing)} missing: pip install quire[gpu]" if missing else "")
