"""What a cut took is won back: without labels (absorb, recalibrate), one method a file."""
