# 8-bit weights (-127..127), 8-bit activations
_base_ = './w3-a8.py'
quantization = dict(weight=dict(levels='int8'))
