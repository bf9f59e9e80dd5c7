# What all quantized SSD512 on COCO share
_base_ = ['mmdet::ssd/ssd512_coco.py', '../../_base_/training/ssd.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], exclude=['backbone.features.33']),  # fc7
)
train_dataloader = dict(batch_size=_base_.training.batch_size)
auto_scale_lr = dict(base_batch_size=_base_.training.batch_size)

# one epoch makes 5 passes over the data: 100 passes, steps after 70 and 90
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[14, 18], gamma=0.1)]
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'ssd/ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth'
)
