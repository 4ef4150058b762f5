"""The types of the extension module; contracts stand in `quire.ops`."""

from typing import Any

def best_isa() -> str: ...
def missing_for(isa: str) -> str: ...

class Device:
    def __init__(self, threads: int, isa: str) -> None: ...
    def close(self) -> None: ...
    @property
    def isa(self) -> str: ...

class PackedWeight:
    @property
    def n(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

def pack(device: Device, parts: list[Any], dtype: str) -> PackedWeight: ...
def unpack(device: Device, weight: PackedWeight, out_NK: Any) -> None: ...
def linear(
    device: Device,
    x_TK: Any,
    weight: PackedWeight,
    out_TN: Any,
    bias_N: Any | None,
    accumulate: bool,
    norm_weight_K: Any | None,
    eps: float,
    silu: bool,
) -> None: ...
def embed(device: Device, ids_T: Any, weight: PackedWeight, out_TH: Any) -> None: ...
def gather_rows(device: Device, x_TH: Any, rows_R: Any, out_RH: Any) -> None: ...
def rms_norm(device: Device, x_TH: Any, weight_H: Any, eps: float, out_TH: Any) -> None: ...
def silu_mul(device: Device, gate_up_T2I: Any, out_TI: Any) -> None: ...

class KVCache:
    def __init__(
        self, num_layers: int, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, dtype: str
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def block_nbytes(self) -> int: ...
    def copy_blocks(self, pairs: Any) -> None: ...
    def read(self, layer: int, block: int) -> tuple[Any, Any]: ...

def rope_store(
    device: Device,
    qkv_TN: Any,
    positions_T: Any,
    slots_T: Any,
    cos_PD2: Any,
    sin_PD2: Any,
    kv: KVCache,
    layer: int,
    q_norm_D: Any | None,
    k_norm_D: Any | None,
    eps: float,
    q_out_TQD: Any,
) -> None: ...
def attention(
    device: Device,
    q_TQD: Any,
    kv: KVCache,
    layer: int,
    query_starts_S1: Any,
    seq_lens_S: Any,
    block_tables_SB: Any,
    scale: float,
    out_T_QD: Any,
) -> None: ...
