# As w3-a8-int, with 4-bit weights (-7..7) and 4-bit activations inside
_base_ = './w3-a8-int.py'
quantization = dict(weight=dict(levels='int4'), activation=dict(levels='uint4'))
