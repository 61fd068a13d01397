"""Names beside the points of a scatter plot, moved apart where they would overlap."""

import plotly.graph_objects as go

from efflab.base.alignment import display_width
from efflab.lab import colours

FONT_SIZE, LINE, GAP = 11, 15, 10  # pixels: of the letters, of a line, between point and name


def place_labels(
    fig: go.Figure,
    points: list[tuple[float, float, str]],
    pixels: tuple[int, int],
    *,
    row: int = 1,
    reverse: bool = False,
) -> None:
    """Annotate `points` (x, y, name) in panel `row`, whose plot is `pixels` wide and high.

    Sets the panel's axes to hold all points and x = 0; `reverse`: smaller y on top. A name is put
    right of its point, or left if it would leave the panel, and moved up or down until it covers
    no other name.
    """
    if not points:
        return
    x_range = 0.0, 1.1 * max(x for x, _, _ in points)
    low, high = min(y for _, y, _ in points), max(y for _, y, _ in points)
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    y_range = (high + margin, low - margin) if reverse else (low - margin, high + margin)
    fig.update_xaxes(range=x_range, row=row, col=1)
    fig.update_yaxes(range=y_range, row=row, col=1)
    boxes: list[tuple[float, float, float, float]] = []
    marks = [(*_pixel(x, y, x_range, y_range, pixels), text) for x, y, text in points]
    boxes += [(px - 6, py - 6, px + 6, py + 6) for px, py, _ in marks]
    order = sorted(range(len(points)), key=lambda i: marks[i][1])
    for i in order:
        (x, y, text), (px, py, _) = points[i], marks[i]
        width = 0.58 * FONT_SIZE * display_width(text)
        shift, box = _free_place(px, py, width, pixels, boxes)
        boxes.append(box)
        fig.add_annotation(
            x=x,
            y=y,
            ax=(box[0] + box[2]) / 2 - px,
            ay=shift,
            text=text,
            row=row,
            col=1,
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.8,
            arrowcolor=colours.GREY,
            standoff=6,
            font_size=FONT_SIZE,
            bgcolor=colours.THIN_VEIL,
            borderpad=0,
        )


def _pixel(x, y, x_range, y_range, pixels) -> tuple[float, float]:
    """Pixel coordinates from the panel's upper left corner, y downwards."""
    across = (x - x_range[0]) / (x_range[1] - x_range[0])
    up = (y - y_range[0]) / (y_range[1] - y_range[0])
    return across * pixels[0], (1 - up) * pixels[1]


def _free_place(px, py, width, pixels, boxes):
    """(vertical shift, box) of the nearest place that overlaps nothing: right first, then left."""
    for step in range(40):
        for sign in (1, -1) if step else (1,):
            shift = sign * step * LINE / 2
            for left in (px + GAP, px - GAP - width):
                box = (left, py + shift - LINE / 2, left + width, py + shift + LINE / 2)
                inside = 0 <= box[0] and box[2] <= pixels[0] and 0 <= box[1] <= pixels[1]
                if inside and not any(_overlap(box, other) for other in boxes):
                    return shift, box
    return 0.0, (px + GAP, py - LINE / 2, px + GAP + width, py + LINE / 2)


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
