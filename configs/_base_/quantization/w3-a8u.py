# As w3-a8, at the nearest level: a runtime quantizes by rounding. Holds at low bits too, and is the
# parent of the recipes that do: docs/low_bit.md
_base_ = './w3-a8.py'
quantization = dict(
    weight=dict(thresholds='uniform', scale_init='mse'),
    activation=dict(thresholds='uniform', scale_init='mse', surrogate_temperature=6),
)
