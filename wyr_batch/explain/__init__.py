"""From batches to masks."""
