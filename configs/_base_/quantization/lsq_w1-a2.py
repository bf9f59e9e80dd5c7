# LSQ: binary weights (the clipped sign), 2-bit activations
_base_ = './lsq_w2-a2.py'
quantization = dict(weight=dict(levels='binary'))
