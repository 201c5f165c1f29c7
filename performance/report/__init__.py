"""Options and files of the scripts, tables, pictures, and the pages that are made of them."""
