"""From tables and files of lines to texts, which are rows as reads are (`reads.chunk.ReadChunk`)."""
