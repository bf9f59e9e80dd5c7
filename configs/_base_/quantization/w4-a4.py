# 4-bit weights (-7..7), 4-bit activations.
# As the paper trains; at low activation bits start with a recipe `u`, see docs/low_bit.md
_base_ = './w3-a8.py'
quantization = dict(weight=dict(levels='int4'), activation=dict(levels='uint4'))
