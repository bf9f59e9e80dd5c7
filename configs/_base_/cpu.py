# Several processes on CPUs. Inherit it beside a config and add `env_cfg = _base_.cpu_env_cfg`:
# two base files may not share a key, and every config has an `env_cfg`.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
cpu_env_cfg = dict(dist_cfg=dict(backend='gloo'))
