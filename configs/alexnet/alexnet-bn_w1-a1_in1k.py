_base_ = ['./_base_/alexnet-bn_in1k.py', '../_base_/quantization/w1-a1.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
