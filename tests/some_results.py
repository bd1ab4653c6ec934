"""Results as a benchmark makes them, of made-up numbers: for reports, which only have to show what is there."""

from __future__ import annotations

from flashsloth.benchmark.results import ModelResult, PairedRun, Results, Run

MACHINE = {
    "name": "Example processor",
    "device": "cpu",
    "cores": 2,
    "memory_bytes": 24 * 10**9,
    "read_bandwidth": 50e9,
    "matrix_rate": {"bfloat16": 1e12, "float32": 0.5e12},
    "torch": "2.13.0",
    "transformers": "5.23.0",
}
STAGES = {"prepare": 0.01, "encoder": 0.6, "pooling": 0.05, "projector": 0.02, "language": 0.29, "query": 0.02}


def make_run(first: float, token: float, tokens: int = 4, share: float = 0.0, disturbed: bool = False) -> Run:
    """A run whose stages are in fixed proportions, and whose tokens come evenly."""
    stages = {name: first * part for name, part in STAGES.items()}
    stages["other"] = first - sum(stages.values())
    return Run(
        stages, [first + number * token for number in range(tokens)], share, MACHINE["read_bandwidth"], disturbed
    )


def make_model_result(
    name: str,
    title: str,
    kind: str,
    *,
    visual: int,
    firsts: list[float],
    token: float,
    flops: float = 1e12,
    precision: str = "bfloat16",
    varies: str | None = None,
) -> ModelResult:
    """A model with a run for each time to the first token."""
    return ModelResult(
        name,
        title,
        kind,
        "bfloat16",
        precision,
        varies,
        parameters=3_200_000_000,
        visual_tokens=visual,
        positions=visual + 73,
        flops={"prepare": 0.0, "encoder": 0.4 * flops, "language": 0.6 * flops, "step": 5e9},
        step_bytes=5_000_000_000,
        key_value_bytes=300_000,
        build_seconds=40.0,
        peak_bytes=7_500_000_000,
        runs=[make_run(first, token) for first in firsts],
    )


def make_results() -> Results:
    """A FlashSloth, another form of it, a baseline, and a baseline that failed."""
    first = make_model_result("flashsloth", "FlashSloth", "flashsloth", visual=81, firsts=[2.0, 2.2, 1.8], token=0.12)
    first.again = [make_run(0.4, 0.12, tokens=1)] * 3
    first.batch_rows, first.batches = 8, [make_run(16.0, 0.16)]
    eight = make_model_result(
        "flashsloth-int8",
        "FlashSloth int8",
        "flashsloth",
        visual=81,
        firsts=[2.4],
        token=0.08,
        precision="int8",
        varies="flashsloth",
    )
    baseline = make_model_result(
        "qwen2-vl-2b", "Qwen2-VL-2B", "peer", visual=391, firsts=[8.0, 7.6], token=0.24, flops=3.6e12
    )
    broken = ModelResult("minicpm-v2", "MiniCPM-V 2", "peer", "bfloat16", "bfloat16", failure="build: killed")
    return Results(
        suite="cpu",
        date="2026-01-02T03:04:05+00:00",
        flashsloth="0.0.0",
        threads=2,
        job={"text_tokens": 64, "new_tokens": 4, "seed": 0},
        machine=dict(MACHINE),
        machine_disturbed=False,
        subjects=[first, eight, baseline, broken],
        sittings=[
            PairedRun("flashsloth", "flashsloth-int8", [0], [0]),
            PairedRun("flashsloth", "qwen2-vl-2b", [1, 2], [0, 1]),
            PairedRun("flashsloth", "minicpm-v2", [], []),
        ],
    )
