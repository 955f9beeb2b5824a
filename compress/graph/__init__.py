"""Model -> groups: trace, labels (tie, pin, settle), one rule an operator."""
