# Ternary weights (-1, 0, 1), activations in float
_base_ = './w3-a32.py'
quantization = dict(weight=dict(levels='ternary'))
