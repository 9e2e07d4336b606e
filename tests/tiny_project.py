"""A project of one small notebook, for tests that run notebooks but need no sweep."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "01_tiny"
PARAMETERS = """\
profile: str = "quick"  # smoke, quick, reference or paper
dataset: str = "digits"  # a name or a path
depth: int = 3  # stages, 1 to 10,000
sigma_b2: float = 0.05  # bias variance, 0 or more
jobs: int = 0  # points at a time, 0: one per core"""
CONFIG = """\
from paperlib.instruments.reconstruction.parameters import PhaseDiagram

config = PhaseDiagram.from_notebook(globals())"""
FIGURE = f"""\
import matplotlib.pyplot as plt
from paperlib import notebooks

print("a line of progress", flush=True)
stem = notebooks.figure_path("{NAME}")
stem.parent.mkdir(parents=True, exist_ok=True)
figure, axis = plt.subplots()
axis.plot([0, config.depth])
figure.savefig(stem.with_name(stem.name + ".png"), metadata={{"Software": None}})"""


def build(root: Path, *, figure: str = FIGURE) -> Path:
    """`root` as a project whose only notebook is `NAME`; its last cell is `figure`."""
    cells = [
        new_markdown_cell("# A line\n\nIt goes up\nwith the depth.\n\nMore words."),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(CONFIG),
        new_code_cell(figure),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    about = {"kernelspec": kernel, "paperlib": {"config": "PhaseDiagram"}}
    folder = root / "notebooks"
    profiles = {"quick": "", "smoke": "depth: 2\n", "reference": "depth: 4\n"}
    for profile, values in profiles.items():
        file = folder / "profiles" / profile / f"{NAME}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"profile: {profile}\n{values}")
    nbformat.write(new_notebook(cells=cells, metadata=about), folder / f"{NAME}.ipynb")
    return root
