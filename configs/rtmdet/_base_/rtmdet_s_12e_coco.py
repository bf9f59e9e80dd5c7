# What all quantized RTMDet-s share: twelve epochs from the float model
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../../_base_/training/coco_12e.py']

model = dict(type='mmqnet.QuantizedModel', architecture=_base_.model.type)
# the pictures of upstream's last epochs, without mosaic and mixup
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline_stage2))
train_cfg = _base_.training.train_cfg
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    clip_grad=dict(max_norm=20),
    constructor='mmqnet.QuantOptimWrapperConstructor',
)
param_scheduler = _base_.training.param_scheduler
custom_hooks = [_base_.custom_hooks[0]]  # averages; the pictures do not change any more
default_hooks = _base_.training.default_hooks
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_s_8xb32-300e_coco/'
    'rtmdet_s_8xb32-300e_coco_20220905_161602-387a891e.pth'
)
