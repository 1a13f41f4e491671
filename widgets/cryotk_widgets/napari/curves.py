"""A small plot for a dock: curves, bars, a level and a mark, in the colours of napari's theme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

__all__ = ["COLOURS", "Curve", "CurvePlot", "ticks"]

COLOURS = {"blue": "#56b4e9", "orange": "#e69f00", "green": "#2ca58d", "red": "#e0563f", "grey": "#9a9a9a", "violet": "#b48ad6"}


@dataclass(frozen=True)
class Curve:
    """Points to draw; NaN parts them."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str = "blue"
    is_dashed: bool = False
    is_bars: bool = False
    """Bars from 0, as wide as the points lie apart."""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two."""
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        return []
    raw = (high - low) / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(i * step, 12) for i in range(first, last + 1)]


class CurvePlot(QWidget):
    """Curves over one x axis.

    Parameters
    ----------
    x_title, y_title : str
    x_text : callable, optional
        Text of a tick from its value.
    """

    def __init__(self, x_title: str, y_title: str = "", x_text: Callable[[float], str] | None = None) -> None:
        super().__init__()
        self.x_title, self.y_title, self._x_text = x_title, y_title, x_text or (lambda v: f"{v:g}")
        self.curves: list[Curve] = []
        self.level: float | None = None
        self.mark: tuple[float, str] | None = None
        self._y_range: tuple[float, float] | None = None
        self._left = 46
        self.setMinimumSize(260, 190)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def show_curves(
        self, curves: list[Curve], *, level: float | None = None, mark: tuple[float, str] | None = None,
        y_range: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        """Draw these.

        Parameters
        ----------
        curves : list of Curve
        level : float, optional
            A horizontal line.
        mark : (x, text), optional
            A vertical line.
        y_range : (low, high), optional
            By default what the curves fill.
        """
        self.curves, self.level, self.mark, self._y_range = curves, level, mark, y_range
        self.update()

    def ranges(self) -> tuple[float, float, float, float]:
        """Lowest and highest x, lowest and highest y of the picture."""
        x = np.concatenate([c.x[np.isfinite(c.x)] for c in self.curves] or [np.array([0.0, 1.0])])
        y = np.concatenate([c.y[np.isfinite(c.y)] for c in self.curves] or [np.array([0.0, 1.0])])
        x0, x1 = (float(x.min()), float(x.max())) if x.size else (0.0, 1.0)
        y0, y1 = (float(y.min()), float(y.max())) if y.size else (0.0, 1.0)
        if any(c.is_bars for c in self.curves):
            y0 = 0.0
        y0, y1 = self._y_range or (y0 - 0.03 * (y1 - y0), y1 + 0.05 * (y1 - y0))
        return x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1

    def paintEvent(self, event: object) -> None:
        """Qt's: draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = QColor(self.palette().windowText().color())
        faint = QColor(ink)
        faint.setAlpha(45)
        font = painter.font()
        font.setPointSizeF(8.5)
        painter.setFont(font)
        line = painter.fontMetrics().height()
        x0, x1, y0, y1 = self.ranges()
        # room for the numbers, and beside them for the axis' name
        widest = max((painter.fontMetrics().horizontalAdvance(f"{v:g}") for v in ticks(y0, y1, 6)), default=0)
        self._left = widest + 10 + (line + 4 if self.y_title else 0)
        frame = QRectF(
            self._left, 8 + line * self._legend_rows(), self.width() - self._left - 12,
            self.height() - 2 * line - 16 - line * self._legend_rows(),
        )  # fmt: skip

        def at(x: float, y: float) -> QPointF:
            return QPointF(
                frame.left() + (x - x0) / (x1 - x0) * frame.width(), frame.bottom() - (y - y0) / (y1 - y0) * frame.height()
            )

        self._axes(painter, frame, at, (x0, x1, y0, y1), ink, faint, line)
        painter.save()
        painter.setClipRect(frame.adjusted(-1, -1, 1, 1))
        for curve in self.curves:
            self._draw(painter, curve, at)
        painter.restore()
        if self.level is not None:
            painter.setPen(QPen(ink, 1, Qt.PenStyle.DashLine))
            painter.drawLine(at(x0, self.level), at(x1, self.level))
        if self.mark is not None and x0 <= self.mark[0] <= x1:
            p = at(self.mark[0], y1)
            painter.setPen(QPen(ink, 1, Qt.PenStyle.DotLine))
            painter.drawLine(p, at(self.mark[0], y0))
            width = painter.fontMetrics().horizontalAdvance(self.mark[1])
            left = p.x() + 5 if p.x() + 5 + width < frame.right() else p.x() - 5 - width
            painter.setPen(ink)
            painter.drawText(QPointF(left, frame.top() + line), self.mark[1])
        self._legend(painter, ink, line)
        painter.end()

    def _named(self) -> list[Curve]:
        return [c for c in self.curves if c.name]

    def _legend_rows(self) -> int:
        return -(-len(self._named()) // 2)

    def _legend(self, painter: QPainter, ink: QColor, line: int) -> None:
        for i, curve in enumerate(self._named()):
            x, y = self._left + (i % 2) * (self.width() - self._left - 12) / 2, 4 + line * (i // 2)
            pen = QPen(QColor(COLOURS[curve.colour]), 2, Qt.PenStyle.DashLine if curve.is_dashed else Qt.PenStyle.SolidLine)
            painter.setPen(pen)
            painter.drawLine(QPointF(x, y + line / 2), QPointF(x + 16, y + line / 2))
            painter.setPen(ink)
            painter.drawText(QPointF(x + 21, y + line - 4), curve.name)

    def _axes(self, painter: QPainter, frame: QRectF, at: Callable[[float, float], QPointF],
              ranges: tuple[float, float, float, float], ink: QColor, faint: QColor, line: int) -> None:  # fmt: skip
        x0, x1, y0, y1 = ranges
        for v in ticks(y0, y1, 6):
            p = at(x0, v)
            painter.setPen(QPen(faint, 1))
            painter.drawLine(p, at(x1, v))
            painter.setPen(ink)
            box = QRectF(0, p.y() - line / 2, frame.left() - 5, line)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{v:g}")
        for v in ticks(x0, x1, max(2, int(frame.width() / 42))):
            p = at(v, y0)
            painter.setPen(QPen(faint, 1))
            painter.drawLine(p, at(v, y1))
            painter.setPen(ink)
            painter.drawText(QRectF(p.x() - 40, frame.bottom() + 2, 80, line), Qt.AlignmentFlag.AlignHCenter, self._x_text(v))
        painter.setPen(QPen(ink, 1))
        painter.drawLine(frame.bottomLeft(), frame.bottomRight())
        painter.drawLine(frame.bottomLeft(), frame.topLeft())
        title = QRectF(frame.left(), frame.bottom() + 2 + line, frame.width(), line + 2)
        painter.drawText(title, Qt.AlignmentFlag.AlignHCenter, self.x_title)
        if self.y_title:
            painter.save()
            painter.translate(2, frame.center().y())
            painter.rotate(-90)
            painter.drawText(QRectF(-frame.height() / 2, 0, frame.height(), line), Qt.AlignmentFlag.AlignHCenter, self.y_title)
            painter.restore()

    @staticmethod
    def _draw(painter: QPainter, curve: Curve, at: Callable[[float, float], QPointF]) -> None:
        colour = QColor(COLOURS[curve.colour])
        good = np.isfinite(curve.x) & np.isfinite(curve.y)
        if curve.is_bars:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            width = float(curve.x[1] - curve.x[0]) if len(curve.x) > 1 else 1.0
            for x, y in zip(curve.x[good].tolist(), curve.y[good].tolist(), strict=True):
                painter.drawPolygon(
                    QPolygonF([at(x - width / 2, 0), at(x - width / 2, y), at(x + width / 2, y), at(x + width / 2, 0)])
                )
            return
        path, down = QPainterPath(), False
        for x, y, ok in zip(curve.x.tolist(), curve.y.tolist(), good.tolist(), strict=True):
            if ok:
                (path.lineTo if down else path.moveTo)(at(x, y))
            down = ok
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(colour, 1.8, Qt.PenStyle.DashLine if curve.is_dashed else Qt.PenStyle.SolidLine))
        painter.drawPath(path)
