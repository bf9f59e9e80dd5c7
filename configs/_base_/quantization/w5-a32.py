# 5-bit weights (-15..15), activations in float
_base_ = './w3-a32.py'
quantization = dict(weight=dict(levels='int5'))
