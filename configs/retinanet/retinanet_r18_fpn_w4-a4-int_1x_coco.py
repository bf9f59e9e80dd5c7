_base_ = ['./_base_/retinanet_r18_fpn_1x_coco.py', '../_base_/quantization/w4-a4-int.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
