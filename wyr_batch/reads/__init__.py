"""From files to columns of reads."""
