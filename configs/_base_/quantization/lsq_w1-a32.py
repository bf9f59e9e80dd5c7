# LSQ: binary weights (the clipped sign), activations in float
_base_ = './lsq_w3-a32.py'
quantization = dict(weight=dict(levels='binary'))
