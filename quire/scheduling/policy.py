"""Knows: who goes first, who is put back first, and how a step's tokens are shared out: pure functions of numbers.

    fcfs       one queue in order of arrival; nobody overtakes
    priority   one queue; a level of priority is worth a second of waiting, and the lower level is sooner
    fair       one queue a tenant, ordered as under `priority`; the tenant that was served least, by weight, is next

Does not know: queues, blocks, or what the tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from quire.errors import InvalidSetting

AGEING_S = 1.0  # what a level of priority is worth
MAX_PASSED = 16  # smaller requests that may pass one that does not fit
LOOK_AHEAD = 8  # requests that are looked at beyond those that fit
PROMPT_SHARE = 4
WATERMARK_SHARE = 100
PROMPT_PRICE = 1.0  # of a prompt token that is computed
OUTPUT_PRICE = 2.0  # of a token drawn
HELD_PRICE = 1.0 / 1024  # of a token held in the KV cache while one is drawn

Place = tuple[float, int, int]
FAVOURED, ORDINARY, DEFERRED = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Policy:
    """What sets one policy apart from the others."""

    name: str
    ages: bool = True  # priorities count
    by_tenant: bool = False
    may_pass: bool = True


POLICIES = {
    "fcfs": Policy("fcfs", ages=False, may_pass=False),
    "fair": Policy("fair", by_tenant=True),
    "priority": Policy("priority"),
}


def policy_named(name: str) -> Policy:
    """The policy of that name, or `InvalidSetting`."""
    if name not in POLICIES:
        raise InvalidSetting("there is no such scheduling policy", got=name, allowed=", ".join(POLICIES))
    return POLICIES[name]


def turn(policy: Policy, arrival_s: float, arrival: int, priority: int, index: int = 0) -> Place:
    """Key in a queue. It never changes: waiting `AGEING_S` longer is worth as much as one level, now and later.

    So a request is passed by none that arrives more than `AGEING_S` a level of difference after it.
    """
    return (arrival_s + AGEING_S * priority if policy.ages else 0.0, arrival, index)


def place(policy: Policy, arrival_s: float, arrival: int, priority: int, index: int = 0) -> Place:
    """Key among those who run: the least grows first and is never put back for another.

    Between tenants it is the arrival alone: nobody takes others' memory by calling his own work urgent.
    """
    return (0.0, arrival, index) if policy.by_tenant else turn(policy, arrival_s, arrival, priority, index)


def prompt_charge(num_tokens: int) -> float:
    """Service that a prompt is charged with when it is admitted: what of it must be computed."""
    return PROMPT_PRICE * num_tokens


def draw_charge(num_held: int) -> float:
    """Service of one drawn token of a sequence that holds `num_held`."""
    return OUTPUT_PRICE + HELD_PRICE * num_held


def worst_charge(num_prompt: int, max_tokens: int, num_samples: int = 1) -> float:
    """The most that a request can be charged with."""
    outputs = max_tokens * draw_charge(num_prompt + max_tokens)
    return prompt_charge(num_prompt) + num_samples * outputs


def lifted(service: float, waiting: SequenceOf[float], last_left: float) -> float:
    """A tenant's counter when it begins to wait: no credit for the time in which it asked for nothing.

    Sheng et al. 2024, "Fairness in Serving Large Language Models" (arXiv 2401.00588), algorithm 2, lines 6 to 14.
    """
    return max(service, min(waiting) if waiting else last_left)


def service_bound(max_num_seqs: int, max_model_len: int, least_weight: float = 1.0) -> float:
    """U of that paper's theorem 4.4: over any time in which two tenants both wait, their service (a tenant's charges
    divided by its weight) differs by at most 2 U.

    U = max(w_p * longest prompt, w_q * M) with M the most tokens that a running batch can come to hold. Here an
    output's price grows with the tokens held, so w_q is the price of a longest sequence's last token.
    """
    prompt = prompt_charge(max_model_len)
    batch = draw_charge(max_model_len) * max_num_seqs * max_model_len
    return max(prompt, batch) / least_weight


def share_out(owed: SequenceOf[int], budget: int, standing: SequenceOf[int] = ()) -> list[int]:
    """Tokens granted to each running sequence, oldest first, at most `budget` in all.

    Whoever owes one token (its newest) goes before those who owe many (a prompt, or what a preemption threw away), so
    that a long prompt stalls nobody; but a quarter of the budget is kept for prompts, so that a full house of short
    steps does not stall a prompt either. The oldest sequence always gets a token.

        budget  |-- one each, oldest first --|-- prompts, oldest first: at least a quarter if they owe it --|

    `standing`, where tenants compete: FAVOURED prompts (first tokens of a tenant under its share) go first among
    prompts, and before the DEFERRED (newest tokens of tenants over theirs), to whom they leave a quarter.
    """
    total = sum(owed)
    if total <= budget:
        return list(owed)
    standing = standing or [ORDINARY] * len(owed)
    singles = [i for i, count in enumerate(owed) if count == 1]
    prompts = [i for i, count in enumerate(owed) if count > 1]
    spare = budget - 1 if owed[0] == 1 else budget
    quarter = -(-spare // PROMPT_SHARE)
    num_deferred = sum(1 for i in singles if standing[i] == DEFERRED and i)
    favoured = sum(owed[i] for i in prompts if standing[i] == FAVOURED)
    before = len(singles) - num_deferred + min(num_deferred, quarter)
    kept = min(total - len(singles), max(quarter, min(favoured, budget - before)))
    grants = [0] * len(owed)
    grants[0] = 1
    left = budget - 1
    rest = kept if owed[0] == 1 else kept - 1
    for i in sorted(singles, key=lambda i: -standing[i] if i else -FAVOURED):
        if i and left > rest:
            grants[i] = 1
            left -= 1
    for i in sorted(prompts, key=lambda i: -standing[i]):
        more = min(owed[i] - grants[i], left)
        grants[i] += more
        left -= more
    return grants


def watermark(num_blocks: int) -> int:
    """Idle blocks that admission leaves to those already running: one in a hundred, at least one."""
    return max(1, num_blocks // WATERMARK_SHARE)
