# Ternary weights, 2-bit activations.
# As the paper trains; at low activation bits start with a recipe `u`, see docs/low_bit.md
_base_ = './w3-a8.py'
quantization = dict(weight=dict(levels='ternary'), activation=dict(levels='uint2'))
