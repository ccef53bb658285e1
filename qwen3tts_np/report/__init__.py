"""How anything is reported: one maker of tables, of HTML pages, of SVG pictures and of plots with matplotlib."""
