"""Makes a trained PyTorch network smaller and faster by physically removing channels."""

from __future__ import annotations

__version__ = "0.1.0"
