"""What error is normal in a weight format: the top of the precision ladder (golden/ladder), for ``compare``.

A rung is the relative error, RMS of the difference / RMS of float64, of the layer where it is largest, on the 0.6B
checkpoint. Another quantiser, or another order of summation, is allowed twice that. The ladder has talker and code
predictor only; whatever else a port computes in such a format is held to the talker's limit.
"""

from __future__ import annotations

FACTOR = 2.0
RUNGS = {  # format -> network -> error; bfloat16 is weights and activations, int8 and int4 are weights alone
    "float32": {"talker": 2.83e-06, "code_predictor": 4.15e-06},
    "bfloat16": {"talker": 0.0318, "code_predictor": 0.0477},
    "int8": {"talker": 0.0237, "code_predictor": 0.0348},
    "int4": {"talker": 0.391, "code_predictor": 0.527},
}
LIMITS = {name: {part: FACTOR * error for part, error in rung.items()} for name, rung in RUNGS.items()}
WHY = (
    f"formats: for a port in another weight format, RMS of the difference / RMS of the expected tensor may be so much; "
    f"{FACTOR:g} times the largest error of golden/ladder on 0.6B. Other parts of the model have the talker's limit."
)


def limit(weights_format: str, name: str) -> float:
    """The relative RMS error that a tensor may have in a format. KeyError for a format that the ladder has not."""
    part = "code_predictor" if name.startswith("talker.code_predictor") else "talker"
    return LIMITS[weights_format][part]
