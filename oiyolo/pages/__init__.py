"""What the HTML pages share: their frame, style and security, tables, and a gallery."""
