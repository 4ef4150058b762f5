"""The product of rows with a weight matrix.

Knows: torch's own product (cuBLAS on a GPU), the weight's layout. Does not know: layers.

Legend: T rows, K inputs, N outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.torch.rms_norm import normed
from quire.kernels.torch.silu_mul import gated
from quire.kernels.torch.weight import Weight


def linear(
    x_TK: Tensor,
    weight: Weight,
    out_TN: Tensor,
    bias_N: Tensor | None = None,
    accumulate: bool = False,
    norm_weight_K: Tensor | None = None,
    eps: float = 0.0,
    silu: bool = False,
) -> None:
    """out = x W^T (+ bias) (+ old out). x float32, bfloat16 or float16 [T, K] ([T, 2K] with `silu`), contiguous.

    bias and norm weight are float32. With `norm_weight_K` rows are normalised, with `silu` gated on the way in: in
    float32, rounded once to x's dtype. Sums are float32; out has x's dtype or is float32.
    """
    x_TK = prepared(x_TK, norm_weight_K, eps, silu)
    weight_NK = operand(weight, x_TK.dtype)
    if accumulate and out_TN.dtype == x_TK.dtype:
        if bias_N is not None:
            out_TN.add_(bias_N)
        out_TN.addmm_(x_TK, weight_NK.t())
        return
    product_TN = product(x_TK, weight_NK, out_TN.dtype)
    if bias_N is not None:
        product_TN = product_TN + bias_N
    if accumulate:
        out_TN.add_(product_TN)
    else:
        out_TN.copy_(product_TN)


def prepared(x_TK: Tensor, norm_weight_K: Tensor | None, eps: float, silu: bool) -> Tensor:
    """The rows as they are multiplied, in x's dtype."""
    if norm_weight_K is not None:
        return normed(x_TK, norm_weight_K, eps).to(x_TK.dtype)
    return gated(x_TK).to(x_TK.dtype) if silu else x_TK


def operand(weight: Weight, dtype: torch.dtype) -> Tensor:
    """[N, K] in `dtype`; rounded weights are widened for each product, which is what Triton's kernels spare."""
    return weight.data if weight.data.dtype == dtype else weight.rows().to(dtype)


def product(x_TK: Tensor, weight_NK: Tensor, dtype: torch.dtype) -> Tensor:
    """x W^T in `dtype` or finer, summed in float32."""
    if dtype == x_TK.dtype or x_TK.dtype == torch.float32:
        return x_TK @ weight_NK.t()
    if x_TK.is_cuda:
        return torch.mm(x_TK, weight_NK.t(), out_dtype=dtype)
    return x_TK.to(dtype) @ weight_NK.t().to(dtype)
