"""All tricky networks: importing this enters every case."""

from __future__ import annotations

from tests.zoo import tricky, tricky_choices, tricky_norms, tricky_programs, tricky_queries, tricky_tokens
from tests.zoo.case import CASES

__all__ = ["CASES", "tricky", "tricky_choices", "tricky_norms", "tricky_programs", "tricky_queries", "tricky_tokens"]
