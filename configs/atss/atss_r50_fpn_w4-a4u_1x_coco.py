_base_ = ['./_base_/atss_r50_fpn_1x_coco.py', '../_base_/quantization/w4-a4u.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
