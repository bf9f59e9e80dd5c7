# Binary weights with the mean magnitude of each output channel (XNOR-Net), activations in float
_base_ = './w3-a32u.py'
quantization = dict(weight=dict(_delete_=True, type='BWN', levels='binary', granularity='channel'))
quantization_hooks = dict(temperature=None, gap=None)
