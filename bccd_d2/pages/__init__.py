"""What all pages share that need nothing but themselves: type, tables, pictures, words. A leaf."""
