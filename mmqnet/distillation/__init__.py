"""A float model that teaches its quantized one: what is compared, and how."""

from mmqnet.distillation.distiller import DistillationConfig, Distiller
from mmqnet.distillation.divergence import divergence
from mmqnet.distillation.teacher import build_teacher, check_teacher

__all__ = ['DistillationConfig', 'Distiller', 'build_teacher', 'check_teacher', 'divergence']
