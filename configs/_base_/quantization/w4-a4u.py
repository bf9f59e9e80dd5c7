# 4-bit weights (-7..7), 4-bit activations, at the nearest level
_base_ = './w3-a8u.py'
quantization = dict(
    weight=dict(levels='int4', granularity='layer'), activation=dict(levels='uint4')
)
