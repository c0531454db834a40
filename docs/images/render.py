#!/usr/bin/env python3
"""Draw a terminal session as SVG: render.py TITLE < session.txt > picture.svg

Lines that start with `$ ` are commands. Words in COLOURS are coloured, as the program's table does not need colour to be read.
"""
import html
import re
import sys

COLOURS = {
    "blackholed": "#ff7b72", "unanswered": "#ff7b72", "overdue": "#ff7b72", "exposed": "#e3b341",
    "protected": "#7ee787", "peer_protected": "#7ee787", "app_protected": "#7ee787",
}
FONT_SIZE, LINE, WIDTH, MARGIN = 14, 20, 8.43, 20


def spans(line):
    """The line as SVG text, with its verdicts coloured."""
    if line.startswith("$ "):
        return f'<tspan fill="#79c0ff">$</tspan> <tspan font-weight="bold">{html.escape(line[2:])}</tspan>'
    coloured = lambda match: f'<tspan fill="{COLOURS[match[0]]}">{match[0]}</tspan>'
    return re.sub(r"\b(" + "|".join(COLOURS) + r")\b", coloured, html.escape(line))


def main():
    # viewers collapse ordinary spaces
    lines = [line.replace("  ", "\u00a0\u00a0") for line in sys.stdin.read().rstrip("\n").split("\n")]
    width = max(len(line) for line in lines) * WIDTH + 2 * MARGIN
    height = (len(lines) + 1) * LINE + 2 * MARGIN + 10
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
          f'aria-label="{html.escape(sys.argv[1])}">')
    print('<rect width="100%" height="100%" rx="8" fill="#0d1117"/>')
    for at, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")):
        print(f'<circle cx="{MARGIN + at * 20}" cy="18" r="6" fill="{colour}"/>')
    print(f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" '
          f'font-size="{FONT_SIZE}" fill="#e6edf3">')
    for at, line in enumerate(lines):
        y = MARGIN + 30 + at * LINE
        length = f' textLength="{len(line) * WIDTH:.0f}" lengthAdjust="spacingAndGlyphs"' if line else ""
        print(f'<text x="{MARGIN}" y="{y}"{length}>{spans(line)}</text>')
    print("</g></svg>")


main()
