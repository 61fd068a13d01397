"""The rooms behind the notebooks: one package each, named as its source without the number."""
