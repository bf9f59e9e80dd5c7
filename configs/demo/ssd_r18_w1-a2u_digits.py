_base_ = './ssd_r18_w2-a2u_digits.py'

model = dict(quantization=dict(weight=dict(levels='binary')))
