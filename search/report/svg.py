"""Figures as SVG elements of a page: with a text alternative, and of each point what is known of its trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from matplotlib.figure import Figure

from search.report.figure import TRIALS, rendered

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def element(
    figure: Figure, label: str, *, details: Mapping[int, str] | None = None, links: Mapping[int, str] | None = None
) -> str:
    """The figure as an ``<svg>`` element that is as wide as its place allows.

    Args:
        figure: to be drawn; the groups of its points that are trials have ids with their numbers.
        label: the text alternative.
        details: what a browser shows while the mouse is over the point of a trial, by number.
        links: where a click on its point leads.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(rendered(figure, "svg"))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for size in ("width", "height"):  # the viewBox keeps the proportions
        root.attrib.pop(size)
    root.attrib |= {"role": "group" if links else "img", "aria-label": label}  # what is in an image cannot be reached
    for group in root.iter(f"{{{SVG}}}g"):
        name = group.get("id", "")
        if name.startswith(TRIALS):
            _annotate(group, map(int, name.removeprefix(TRIALS).split("-")), details or {}, links or {})
    return ElementTree.tostring(root, encoding="unicode")


def _annotate(
    group: ElementTree.Element, numbers: Iterator[int], details: Mapping[int, str], links: Mapping[int, str]
) -> None:
    """Add a title and a link to each point of a group, which are in the order of ``numbers``."""
    for parent in list(group.iter()):
        for at, point in enumerate(list(parent)):
            if point.tag != f"{{{SVG}}}use":
                continue
            number = next(numbers)
            if number in details:
                ElementTree.SubElement(point, f"{{{SVG}}}title").text = details[number]
            if number in links:
                link = ElementTree.Element(f"{{{SVG}}}a", {"href": links[number]})
                parent[at] = link
                link.append(point)
