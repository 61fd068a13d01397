"""What setuptools does besides: the repository's files that the commands read go into the wheel.

`pyproject.toml` names the class; `efflab/base/places.py` says where the files are found.
"""

from pathlib import Path

from setuptools.command.build_py import build_py

COPY = Path("efflab") / "repository"
TAKEN = (
    "notebooks/catalog.toml",
    *("data/README.md", "data/*.json", "data/*.toml"),
    *("data/experiments/*.json", "data/ledger/*.json", "data/published/*.csv"),
    *("data/published/*.json", "data/predicted/*", "data/sweeps/*.json"),
    *("data/stdlib-gpt/*.json", "data/stdlib-gpt/model.safetensors"),
)
"""The rest of data/ is made here: results kept for the next time, half a training."""


def repository_files() -> list[Path]:
    """The files that a wheel takes along, relative to the repository."""
    return [path for pattern in TAKEN for path in sorted(Path().glob(pattern))]


class BuildWithRepository(build_py):
    """setuptools' own step, and the files; an editable install reads them where they are."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for target, source in self._copies().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *self._copies()]

    def get_output_mapping(self):
        return super().get_output_mapping() | self._copies()

    def get_source_files(self):
        return [*super().get_source_files(), *map(str, repository_files()), Path(__file__).name]

    def _copies(self) -> dict[str, str]:
        """{where in the build: file of the repository}."""
        return {str(Path(self.build_lib, COPY, path)): str(path) for path in repository_files()}
