"""Model + plan -> model: slice parameters, repair attributes, rewrite graphs; and the masked reference."""
