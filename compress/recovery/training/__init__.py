"""One training engine for fine-tuning, distillation and training from scratch: a recipe goes in, weights change."""
