"""What makes trainings of seconds short, without a change of what they do."""

import atexit
import functools
import gc
import sys


def make_quick() -> None:
    """Leave out what MMEngine repeats in each run; to be called when all is imported.

    - It searches a config's base among the metafiles of all models: read once.
    - It writes the text of the config into the log, the work dir and each checkpoint, five times a
      run, laid out anew by yapf. Python reads it the same without.
    - Each data set collects garbage, among a million objects of modules, which stay for good.
    """
    if 'mmengine' in sys.modules:
        from mmengine.config import utils
        from yapf.yapflib import yapf_api

        utils.load = functools.cache(utils.load)
        yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.freeze()
    atexit.register(gc.unfreeze)  # or libraries say at the end that their objects leak
