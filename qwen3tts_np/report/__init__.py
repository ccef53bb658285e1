"""Reports: one maker of tables, one of plots, one of pages."""
