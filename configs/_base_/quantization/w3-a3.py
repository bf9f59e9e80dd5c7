# 3-bit weights (±4), 3-bit activations.
# As the paper trains; at low activation bits start with a recipe `u`, see docs/low_bit.md
_base_ = './w3-a8.py'
quantization = dict(activation=dict(levels='uint3'))
