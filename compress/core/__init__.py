"""Plain data that the stages hand to each other, errors, units: no stage's logic lives here."""
