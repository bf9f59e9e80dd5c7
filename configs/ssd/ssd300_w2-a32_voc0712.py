_base_ = ['./_base_/ssd300_voc0712.py', '../_base_/quantization/w2-a32.py']

model = dict(quantization=_base_.quantization)
default_hooks = _base_.quantization_hooks
