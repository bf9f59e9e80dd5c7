_base_ = ['./_base_/rtmdet_tiny_12e_coco.py', '../_base_/quantization/w8-a8u.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
