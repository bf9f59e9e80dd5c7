_base_ = ['./_base_/retinanet_r18_fpn_1x_coco.py', '../_base_/quantization/w2-a2-int.py']

model = dict(
    quantization=dict(
        **_base_.quantization,
        # each level is read by both towers of the head
        overrides={'neck.fpn_convs': dict(output=dict(levels='uint8'))},
    )
)
default_hooks = _base_.quantization_hooks
