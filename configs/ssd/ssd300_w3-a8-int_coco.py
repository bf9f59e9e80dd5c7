_base_ = ['./_base_/ssd300_coco.py', '../_base_/quantization/w3-a8-int.py']

# each of these outputs is read by several layers, or by the normalization in front of the head
shared = dict(output=dict(levels='uint8'))
model = dict(
    quantization=dict(
        **_base_.quantization,
        overrides={
            'backbone.features.21': shared,
            'backbone.features.33': shared,
            'neck.extra_layers.*.1.conv': shared,
            # a third of all weights, which 4 bits hold as well: the file is a quarter smaller
            'bbox_head.cls_convs': dict(weight=dict(levels='int4')),
        },
    )
)
default_hooks = _base_.quantization_hooks
