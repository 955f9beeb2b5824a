"""A page that people look at, from the JSON of any commands: one self-contained HTML file, or Markdown."""
