_base_ = ['./_base_/resnet18_in1k.py', '../_base_/quantization/w2-a2-int.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
