_base_ = ['./_base_/ssd512_coco.py', '../_base_/quantization/w4-a4.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
