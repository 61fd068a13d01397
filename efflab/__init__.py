"""efflab: a survey article on Transformer efficiency that you can run.

The package holds one short, readable implementation per technique; the notebooks tell the story.
Importing it loads nothing heavy: `from efflab import cost` needs neither torch nor a network.
"""

__version__ = "0.1.0"
