"""Repairs of upstream faults, each applied only where the fault is present."""


def repair_ssd_head() -> bool:
    """Give MMDetection's SSDHead the ``loss_cls`` that its base class reads."""
    return False


def apply_all() -> None:
    """Apply every repair."""
