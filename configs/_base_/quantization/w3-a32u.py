# 3-bit weights (±4), each at the nearest level, with the scale of the least squared error
_base_ = './w3-a32.py'
quantization = dict(weight=dict(thresholds='uniform', scale_init='mse'))
