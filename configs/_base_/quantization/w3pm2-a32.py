# 3-bit weights (±2, five levels), activations in float
_base_ = './w3-a32.py'
quantization = dict(weight=dict(levels='pm2'))
