"""Turns sources into executed notebooks, pages and ledgers; `efflab` is its command line."""
