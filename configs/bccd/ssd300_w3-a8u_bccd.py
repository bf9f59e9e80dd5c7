_base_ = ['./_base_/ssd300_bccd_qat.py', '../_base_/quantization/w3-a8u.py']

# powers of two, as in the paper's tables of SSD, and one scale for a layer
weight = dict(_base_.quantization.weight, levels='pm4', granularity='layer')
model = dict(quantization=dict(_base_.quantization, weight=weight))
default_hooks = dict(**_base_.quantization_hooks)
default_hooks.update(_base_.bccd_hooks)
