"""The web site, in English and Chinese; no page needs a kernel or another host."""
