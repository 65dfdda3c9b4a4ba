"""Monitors take readings. One class per thing watched."""

from alerts.monitors.base import Monitor
from alerts.monitors.cpu import CpuMonitor
from alerts.monitors.memory import MemoryMonitor

__all__ = ["CpuMonitor", "MemoryMonitor", "Monitor"]
