_base_ = ['./_base_/ssd300_coco.py', '../_base_/quantization/w3-a8-int.py']

model = dict(
    quantization=dict(
        **_base_.quantization,
        # each of these levels is read by the head's two layers and by the next level
        overrides={'neck.extra_layers.*.1.conv': dict(output=dict(levels='uint8'))},
    )
)
default_hooks = _base_.quantization_hooks
