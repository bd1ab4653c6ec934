"""What share of its limits a device reaches with this code: the one table that `flashsloth plan` rests on.

In: a kind of device and what the weights are stored as. Out: an :class:`Efficiency`, or None where nobody has measured.

Each part of an answer is taken to last

    limit / share + fixed

where the limit is its FLOPs at the machine's matrix rate, or its bytes at the machine's bandwidth, whichever is longer;
the share is what is reached of that; and the fixed part is what starting its operations takes, however small they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Efficiency:
    """Shares of the limit, each more than 0.

    Attributes:
        encoder: the encoder's pass.
        pooling: SAP and projector.
        prefill: the language model's pass over the prompt, with EmbQ and the head.
        decode: its pass over one token.
        row: what each further row of a batch adds to such a pass, as a share of the pass for one row.
    """

    encoder: float
    pooling: float
    prefill: float
    decode: float
    row: float


@dataclass(frozen=True)
class FixedCost:
    """Seconds that do not depend on how large the matrices are.

    Attributes:
        layer: to start the operations of one transformer layer, in any pass.
        token: to choose a token and hand it out.
        picture: to read a picture of 640x480 pixels into rows.
        view_pixel: to make one pixel of a view.
    """

    layer: float
    token: float
    picture: float
    view_pixel: float


EFFICIENCIES: dict[tuple[str, str], Efficiency] = {
    # Fitted by `flashsloth.benchmark.calibrate` to the run in docs/benchmarks.md; int8's and int4's `row` from their
    # kernels.
    ("cpu", "bfloat16"): Efficiency(encoder=0.62, pooling=0.68, prefill=0.81, decode=0.76, row=0.035),
    ("cpu", "float32"): Efficiency(encoder=0.82, pooling=0.62, prefill=0.86, decode=0.75, row=0.029),
    ("cpu", "int8"): Efficiency(encoder=0.74, pooling=0.78, prefill=0.45, decode=0.78, row=(2.2 - 1) / 7),
    ("cpu", "int4"): Efficiency(encoder=0.71, pooling=0.70, prefill=0.31, decode=0.65, row=(3.2 - 1) / 7),
}
"""(kind of device, type of the stored weights) -> shares."""

FIXED_COSTS: dict[str, FixedCost] = {
    # layer and token from the small model, which does little else (`flashsloth bench --quick`); picture and view_pixel
    # from one view's preparation and from five, in the same runs.
    "cpu": FixedCost(layer=0.9e-3, token=0.06e-3, picture=3.0e-3, view_pixel=2.3e-3 / 384**2),
}
"""Kind of device -> seconds."""


def efficiency_of(device_type: str, stored: str) -> tuple[Efficiency, FixedCost] | None:
    """What is known of a kind of device; None if nothing is."""
    efficiency, fixed = EFFICIENCIES.get((device_type, stored)), FIXED_COSTS.get(device_type)
    return None if efficiency is None or fixed is None else (efficiency, fixed)
