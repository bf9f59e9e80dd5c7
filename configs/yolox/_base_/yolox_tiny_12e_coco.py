# What all quantized YOLOX-tiny share: twelve epochs from the float model
_base_ = ['mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', '../../_base_/training/coco_12e.py']

model = dict(type='mmqnet.QuantizedModel', architecture=_base_.model.type)
train_cfg = _base_.training.train_cfg
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(max_norm=20),
    constructor='mmqnet.QuantOptimWrapperConstructor',
)
param_scheduler = _base_.training.param_scheduler
# all epochs are like upstream's last ones: without mosaic and mixup, with the L1 loss
custom_hooks = [
    dict(type='YOLOXModeSwitchHook', num_last_epochs=train_cfg.max_epochs, priority=48),
    *_base_.custom_hooks[1:],
]
default_hooks = _base_.training.default_hooks
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_tiny_8x8_300e_coco/'
    'yolox_tiny_8x8_300e_coco_20211124_171234-b4047906.pth'
)
