"""A panel to play with a study in a notebook; needs the optional extra `widgets`."""

from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from paperlib.activations.stages import output_of
from paperlib.instruments.digits.study import Study
from paperlib.plots import draw_picture, paper_style

SLIDERS = 20  # outputs that can be set by hand, where there are more
MISSING = (
    "The panel needs ipywidgets, which is optional: pip install ipywidgets, then restart the "
    "kernel. The figures above are complete without it."
)


def explore(study: Study) -> None:
    """Show a panel of three: an image, its reconstruction, and the ideal input of set outputs.

    The reader picks a test image and a stage, and moves the network's outputs, which begin at those
    of the image. Without ipywidgets it prints one line that says how to get them.

    Args:
        study: of `study.run_study`.
    """
    try:
        import ipywidgets
    except ImportError:
        print(MISSING)
        return
    from IPython.display import display

    display(_controls(study, ipywidgets))


def views(study: Study, image: int, level: int, outputs: Tensor) -> dict[str, Tensor]:
    """Return the three pictures of the panel by title, (channels, height, width) each.

    Args:
        study: of `study.run_study`.
        image: number of a test image.
        level: stage that it comes back from, 1-based.
        outputs: (classes,), of the last stage, set by hand.
    """
    names = [str(name) for name in study.result["class"].values]
    whole = study.images[image][None]
    pictures = [
        whole,
        study.cascade.reconstruct(whole, levels=level)[0],
        study.cascade.ideal_input(outputs[None]),
    ]
    titles = [f"test image {image}", f"from stage {level}", "outputs by hand"]
    seen = [study.judges.verdicts(picture)[:, 0].tolist() for picture in pictures]
    return {
        f"{title}\nnet: {names[net]}, mean: {names[mean]}": picture[0]
        for title, picture, (net, mean) in zip(titles, pictures, seen, strict=True)
    }


def outputs_of(study: Study, image: int) -> Tensor:
    """Return the outputs of the last stage for a test image, (classes,)."""
    return output_of(study.judges.network.stages, study.images[image][None])[0]


def _controls(study: Study, widgets: Any) -> Any:
    """The panel, as one widget."""
    names = [str(name) for name in study.result["class"].values]
    number = widgets.BoundedIntText(0, min=0, max=len(study.images) - 1, description="image")
    level = widgets.IntSlider(study.cascade.depth, min=1, max=study.cascade.depth)
    level.description = "stage"
    outputs = output_of(study.judges.network.stages, study.images[:1000])
    limit = max(1.0, float(outputs.abs().max()))  # 1, but for activations without a bound
    sliders = [
        widgets.FloatSlider(0.0, min=-limit, max=limit, step=0.05, description=name)
        for name in names[:SLIDERS]
    ]
    screen = widgets.Output()

    def draw(*_: Any) -> None:
        outputs = outputs_of(study, number.value).clone()
        outputs[: len(sliders)] = torch.tensor([slider.value for slider in sliders])
        with screen, paper_style():
            screen.clear_output(wait=True)
            figure = _drawn(views(study, number.value, level.value, outputs))
            plt.show()
            plt.close(figure)

    def follow(*_: Any) -> None:
        found = outputs_of(study, number.value).tolist()
        for slider, value in zip(sliders, found, strict=False):
            slider.unobserve(draw, "value")
            slider.value = value
            slider.observe(draw, "value")
        draw()

    number.observe(follow, "value")
    level.observe(draw, "value")
    follow()
    return widgets.VBox([widgets.HBox([number, level]), screen, widgets.VBox(sliders)])


def _drawn(pictures: dict[str, Tensor]) -> Any:
    figure, axes = plt.subplots(1, len(pictures), figsize=(7.5, 2.8))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        draw_picture(axis, picture.permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=8, loc="center", fontweight="normal")
    return figure
