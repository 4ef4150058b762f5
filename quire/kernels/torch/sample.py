"""The draw: from rows of logits to tokens and log probabilities, without asking the device anything on the way.

Knows: the chain of `kernels/reference/sample.py`, for many rows at once. Does not know: requests, the host.

Legend: R rows, V vocabulary, W words of 32 tokens, D draws, K likeliest tokens told, S places in the table of counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.torch.draws import Outcome, RowTensors
from quire.kernels.torch.integer_weights import UNIT, weigh
from quire.kernels.torch.philox import random_bits, scaled

SAMPLED, NOT_FINITE, NOTHING_ALLOWED = 0, 1, 2
MASKED, FORBIDDING = 1, 2
_LARGEST = torch.finfo(torch.float32).max
_LEAST_PENALTY = torch.finfo(torch.float32).tiny
_MAX_TOKENS = 2**20


def sample(
    logits_RV: Tensor,
    rows: RowTensors,
    out: Outcome,
    counts_SV: Tensor | None = None,
    mask_RW: Tensor | None = None,
) -> None:
    """The contract of `ops/sample.py`. `logits_RV` float32 stays as it is; `mask_RW` int32.

    `counts_SV` int32 is the table that `rows.counts_R` points into: -1 for a token that a sequence has not seen, else
    how often it stands in the answer.
    """
    peak_R = logits_RV.amax(dim=1)  # NaN is passed on
    may_forbid_R = (rows.masked_R & FORBIDDING) != 0
    finite_R = torch.isfinite(logits_RV).all(dim=1) | (may_forbid_R & torch.isfinite(peak_R))
    row_RV = adjusted(logits_RV, rows, counts_SV, mask_RW)
    best_R, chosen_R = first_largest(row_RV)
    something_R = best_R > -torch.inf
    row_D = rows.row_D.long()
    tokens_D = chosen_R[row_D]
    if rows.is_random:
        drawn_D = drawn(row_RV, best_R, rows, row_D)
        tokens_D = torch.where((rows.inv_temperature_R > 0)[row_D], drawn_D, tokens_D)
    given_D = rows.given_R[row_D].long()
    tokens_D = torch.where(given_D >= 0, given_D, tokens_D)
    status_R = torch.where(something_R, SAMPLED, NOTHING_ALLOWED).where(finite_R, NOT_FINITE)
    out.status_R.copy_(status_R)
    out.tokens_D.copy_(torch.where(status_R[row_D] == SAMPLED, tokens_D, -1))
    if rows.has_logprobs:
        tell(logits_RV, peak_R, tokens_D, rows, out)


def adjusted(logits_RV: Tensor, rows: RowTensors, counts_SV: Tensor | None, mask_RW: Tensor | None) -> Tensor:
    """A copy of the rows with penalties, biases, bans and mask."""
    row_RV = logits_RV.clone()
    if rows.is_penalised and counts_SV is not None:
        row_RV = penalised(row_RV, rows, counts_SV).clamp(max=_LARGEST)
    if len(rows.bias_row_B):
        flat_B = rows.bias_row_B.long() * row_RV.shape[1] + rows.bias_id_B
        row_RV.view(-1).index_add_(0, flat_B, rows.bias_value_B)
    if mask_RW is not None:
        ids_V = torch.arange(row_RV.shape[1], device=row_RV.device)
        allowed_RV = (mask_RW[:, ids_V >> 5] >> (ids_V & 31).to(torch.int32)) & 1
        row_RV.masked_fill_((allowed_RV == 0) & ((rows.masked_R & MASKED)[:, None] != 0), -torch.inf)
    return row_RV.clamp_(max=_LARGEST)


def penalised(row_RV: Tensor, rows: RowTensors, counts_SV: Tensor) -> Tensor:
    """Repetition on all counted tokens, presence and frequency on those of the answer."""
    counts_RV = counts_SV[rows.counts_R.clamp(min=0)]
    counts_RV = torch.where(rows.counts_R[:, None] >= 0, counts_RV, -1)
    penalty_R1 = rows.repetition_R.clamp(min=_LEAST_PENALTY)[:, None]
    repeated_RV = torch.where(row_RV > 0, row_RV / penalty_R1, row_RV * penalty_R1)
    row_RV = torch.where((counts_RV >= 0) & (penalty_R1 != 1), repeated_RV, row_RV)
    off_RV = (rows.presence_R[:, None] + rows.frequency_R[:, None] * counts_RV).float()
    return torch.where(counts_RV > 0, row_RV - off_RV, row_RV)


def first_largest(row_RV: Tensor) -> tuple[Tensor, Tensor]:
    """(the largest value, its lowest id) of each row; `argmax` promises no order on a GPU. NaN counts as nothing."""
    best_R = row_RV.amax(dim=1)
    ids_V = torch.arange(row_RV.shape[1], device=row_RV.device)
    chosen_R = torch.where(row_RV == best_R[:, None], ids_V, row_RV.shape[1] - 1).amin(dim=1)
    return best_R, chosen_R


def drawn(row_RV: Tensor, best_R: Tensor, rows: RowTensors, row_D: Tensor) -> Tensor:
    """int64 [D]: by ascending id, the first token whose running sum of weights exceeds a random share of them all."""
    weights_RV = weigh(row_RV, best_R[:, None], rows.inv_temperature_R[:, None])
    if rows.is_truncated:
        weights_RV = truncated(row_RV, weights_RV, rows)
    reach_RV = weights_RV.cumsum(dim=1)
    bits_D = random_bits(rows.seed_R[row_D], rows.index_D.long(), rows.position_R[row_D])
    point_D = scaled(bits_D, reach_RV[:, -1][row_D])
    reach_DV = reach_RV if rows.is_one_each else reach_RV[row_D]
    return torch.searchsorted(reach_DV, point_D[:, None], right=True)[:, 0].clamp(max=row_RV.shape[1] - 1)


def truncated(row_RV: Tensor, weights_RV: Tensor, rows: RowTensors) -> Tensor:
    """The weights of what min_p, top_k and top_p leave; 0 elsewhere."""
    weights_RV = weights_RV.masked_fill(weights_RV < rows.least_weight_R[:, None], 0)
    order_RV = (-row_RV).sort(dim=1, stable=True).indices
    sorted_RV = weights_RV.gather(1, order_RV)
    places_V = torch.arange(row_RV.shape[1], device=row_RV.device)
    top_k_R1 = torch.where(rows.top_k_R > 0, rows.top_k_R, row_RV.shape[1])[:, None]
    sorted_RV = torch.where(places_V < top_k_R1, sorted_RV, 0)
    reach_RV = sorted_RV.cumsum(dim=1)
    total_R = reach_RV[:, -1]
    target_R = torch.minimum((rows.top_p_R * total_R.double()).ceil().long(), total_R)
    target_R = torch.where(rows.top_p_R < 1, target_R, total_R)
    kept_RV = torch.where(reach_RV - sorted_RV < target_R[:, None], sorted_RV, 0)
    return torch.zeros_like(weights_RV).scatter_(1, order_RV, kept_RV)


def tell(logits_RV: Tensor, peak_R: Tensor, tokens_D: Tensor, rows: RowTensors, out: Outcome) -> None:
    """Log probabilities and ranks of the tokens and of the likeliest ones, of the raw logits."""
    total_R = weigh(logits_RV, peak_R[:, None], torch.ones_like(peak_R)[:, None]).sum(dim=1)
    normaliser_R = peak_R.double() + (total_R.double() / UNIT).log()
    row_D = rows.row_D.long()
    row_DV = logits_RV if rows.is_one_each else logits_RV[row_D]
    own_D1 = row_DV.gather(1, tokens_D[:, None])
    ids_V = torch.arange(logits_RV.shape[1], device=logits_RV.device)
    likelier_DV = (row_DV > own_D1) | ((row_DV == own_D1) & (ids_V < tokens_D[:, None]))
    out.logprobs_D.copy_(own_D1[:, 0].double() - normaliser_R[row_D])
    out.ranks_D.copy_(likelier_DV.sum(dim=1) + 1)
    width = min(rows.num_top, logits_RV.shape[1])
    if width:
        top_RK = ordered_key(logits_RV).topk(width, dim=1).values
        ids_RK = _MAX_TOKENS - 1 - (top_RK & (_MAX_TOKENS - 1))
        out.top_ids_RK[:, :width].copy_(ids_RK)
        out.top_logprobs_RK[:, :width].copy_(logits_RV.gather(1, ids_RK).double() - normaliser_R[:, None])


def ordered_key(x_RV: Tensor) -> Tensor:
    """int64 [R, V], all different: larger for larger values, of equal ones (0 and -0 too) for the lower id."""
    bits_RV = (x_RV + 0.0).view(torch.int32).long()
    ordered_RV = torch.where(bits_RV < 0, -(bits_RV & 0x7FFFFFFF), bits_RV)
    ids_V = torch.arange(x_RV.shape[1], device=x_RV.device)
    return (ordered_RV << 20) | (_MAX_TOKENS - 1 - ids_V)
