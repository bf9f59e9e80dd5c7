# Binary weights, 2-bit activations, at the nearest level
_base_ = './w2-a2u.py'
quantization = dict(weight=dict(levels='binary'))
