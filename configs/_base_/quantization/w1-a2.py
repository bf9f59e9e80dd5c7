# Binary weights, 2-bit activations.
# As the paper trains; at low activation bits start with a recipe `u`, see docs/low_bit.md
_base_ = './w2-a2.py'
quantization = dict(weight=dict(levels='binary', backward_temperature=1))
