"""Decoded tokens per second of SmolLM2 in bf16, against transformers' ``generate``.

Both draw 128 tokens after the same 16, greedily and at temperature 1, at batch 1, 16 and 64.
The time includes reading the prompt. Aim: at least 3 times transformers at batch 64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from _common import alternate, matmul_ceiling, write_result

from posttrain.core.assets import load_model
from posttrain.pretraining.model.accounting import forward_flops
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate

MODEL = "smollm2-135m-instruct"
PROMPT = list(range(100, 116))


def main() -> None:
    """Run the comparison and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=128)
    arguments = parser.parse_args()

    model = load_pretrained(MODEL, torch.bfloat16)
    packed = PackedGPT(model)
    peer = load_model(MODEL, dtype=torch.bfloat16).eval()
    ratios = []
    for batch_size in (1, 16, 64):
        prompts = [PROMPT] * batch_size
        ids = torch.tensor(prompts)
        for temperature in (0.0, 1.0):
            params = SamplingParams(
                temperature=temperature, max_new_tokens=arguments.new_tokens
            )
            options = {"do_sample": temperature > 0, "top_k": 0} if temperature else {}

            def ours(prompts=prompts, params=params) -> float:
                return tokens_per_second(
                    lambda: generate(packed, prompts, params), prompts, params
                )

            def peers(ids=ids, options=options, prompts=prompts, params=params) -> float:
                new = params.max_new_tokens
                return tokens_per_second(
                    lambda: peer.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        min_new_tokens=new,
                        max_new_tokens=new,
                        **({"do_sample": False} | options),
                    ),
                    prompts,
                    params,
                )

            ours(), peers()  # warm up both
            how = f"temperature {temperature:g}" if temperature else "greedy"
            what = f"tokens/s, batch {batch_size}, {how}"
            ratios.append(alternate(what, ours, peers, arguments.rounds))

    ceiling = matmul_ceiling(torch.bfloat16)
    per_token = forward_flops(model.config, 64) / 64
    print(
        f"bf16 product ceiling {ceiling / 1e9:.0f} GFLOP/s: {ceiling / per_token:.0f} tokens/s"
    )
    write_result(
        "sampling_vs_transformers",
        ratios,
        new_tokens=arguments.new_tokens,
        bf16_flops_per_second=ceiling,
        ceiling_tokens_per_second=ceiling / per_token,
        packed=packed.lm_head.packed is not None,
    )


def tokens_per_second(
    run: Callable[[], object], prompts: list[list[int]], params: SamplingParams
) -> float:
    """Time one call.

    Args:
        run: Draws all completions.
        prompts: One per row.
        params: Says how many tokens a row gets.

    Returns:
        Drawn tokens per second.
    """
    started = time.perf_counter()
    run()
    return len(prompts) * params.max_new_tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
