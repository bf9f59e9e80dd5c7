# 3-bit weights (-4..3), a scale for each output channel, 8-bit activations, at the nearest level: a
# runtime quantizes by rounding.
# Weights and activations learn together; holds at low bits too, see docs/low_bit.md
_base_ = './w3-a32u.py'
quantization = dict(
    activation=dict(levels='uint8', thresholds='uniform', scale_init='mse', surrogate_temperature=3)
)
