# Six epochs more in float: after the first twelve it is still improving
_base_ = './_base_/ssd300_bccd_finetune.py'
load_from = 'work_dirs/ssd300_bccd/epoch_12.pth'
