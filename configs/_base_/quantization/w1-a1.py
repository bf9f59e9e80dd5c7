# Binary weights (-1, 1), binary activations (0, 1)
_base_ = './w2-a2.py'
quantization = dict(weight=dict(levels='binary'), activation=dict(levels='uint1'))
