# What all quantized SSD300 on VOC07+12 share
_base_ = ['mmdet::pascal_voc/ssd300_voc0712.py', '../../_base_/training/ssd.py']

model = dict(
    type='mmqnet.QuantizedModel',
    architecture=_base_.model.type,
    quantization=dict(include=['backbone'], exclude=['backbone.features.33']),  # fc7
)
train_dataloader = dict(batch_size=_base_.training.batch_size)
auto_scale_lr = dict(base_batch_size=_base_.training.batch_size)

# one epoch makes 10 passes over the data: 100 passes, steps after 70 and 90
train_cfg = dict(max_epochs=10)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[7, 9], gamma=0.1)]
optim_wrapper = _base_.training.optim_wrapper
load_from = (
    'https://download.openmmlab.com/mmdetection/v2.0/'
    'pascal_voc/ssd300_voc0712/ssd300_voc0712_20220320_194658-17edda1b.pth'
)
