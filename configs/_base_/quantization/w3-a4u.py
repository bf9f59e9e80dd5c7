# 3-bit weights (-4..3), 4-bit activations, at the nearest level
_base_ = './w3-a8u.py'
quantization = dict(activation=dict(levels='uint4'))
