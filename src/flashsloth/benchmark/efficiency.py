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
    # -----------------------------------------------------------------------------------------------------------------
    # TO BE FITTED. Measure with `flashsloth bench --suite cpu` on an idle machine, then put in what
    # `flashsloth.benchmark.fit.fit_efficiencies` says of its results.
    #
    # Until then: from kernels measured one by one on two Zen 5 cores.
    #   encoder   linear layers at the full rate, and 26 layers of attention at 7.4 ms a picture
    #   pooling   SAP 3.8 ms (float32 12 ms), projector at the full rate
    #   decode    one-row products: packed 49.5 of 50 GB/s with norms and attention on top; int8 30.5, int4 35 of 50
    #   row       a product of eight rows costs 1.2, 2.2 and 3.2 times one of one row in bfloat16, int8 and int4
    #   prefill   as the encoder; int8 weights are widened first; int4 takes a row after the other
    # -----------------------------------------------------------------------------------------------------------------
    ("cpu", "bfloat16"): Efficiency(encoder=0.80, pooling=0.65, prefill=0.80, decode=0.90, row=(1.2 - 1) / 7),
    ("cpu", "float32"): Efficiency(encoder=0.80, pooling=0.45, prefill=0.80, decode=0.90, row=(1.2 - 1) / 7),
    ("cpu", "int8"): Efficiency(encoder=0.80, pooling=0.65, prefill=0.60, decode=0.60, row=(2.2 - 1) / 7),
    ("cpu", "int4"): Efficiency(encoder=0.80, pooling=0.65, prefill=0.34, decode=0.70, row=(3.2 - 1) / 7),
}
"""(kind of device, type of the stored weights) -> shares."""

FIXED_COSTS: dict[str, FixedCost] = {
    # TO BE FITTED before the table above: layer and token by `flashsloth.benchmark.fit.fit_fixed_cost` from the results
    # of `flashsloth bench --quick`, whose model is so small that it does little else.
    # picture and view_pixel: one view takes 2.6 ms, five take 9.8 ms.
    "cpu": FixedCost(layer=0.0, token=0.0, picture=0.8e-3, view_pixel=1.8e-3 / 384**2),
}
"""Kind of device -> seconds."""


def efficiency_of(device_type: str, stored: str) -> tuple[Efficiency, FixedCost] | None:
    """What is known of a kind of device; None if nothing is."""
    efficiency, fixed = EFFICIENCIES.get((device_type, stored)), FIXED_COSTS.get(device_type)
    return None if efficiency is None or fixed is None else (efficiency, fixed)


__all__ = ["EFFICIENCIES", "FIXED_COSTS", "Efficiency", "FixedCost", "efficiency_of"]
