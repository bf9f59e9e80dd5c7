# 8 bits at the nearest level: integer runtimes execute it directly
_base_ = './w3-a8u.py'
quantization = dict(weight=dict(levels='int8', granularity='layer'))
