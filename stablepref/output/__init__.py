"""Everything that is written or shown: durable files, tables, pages, figures, progress."""
