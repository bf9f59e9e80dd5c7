# Three epochs from the float checkpoint, in float or quantized
_base_ = './ssd300_bccd_finetune.py'

load_from = 'work_dirs/ssd300_finetune_bccd/epoch_6.pth'

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs)
