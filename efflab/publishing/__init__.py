"""From sources to executed notebooks, pages and ledgers; `efflab` is its command line."""
