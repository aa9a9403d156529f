"""What a ledger tells of its pool, as one page: figures gathered, then drawn."""

from __future__ import annotations

from raypool.report.figures import Figures
from raypool.report.gathering import gather
from raypool.report.page import render

__all__ = ["Figures", "gather", "render"]
