#!/usr/bin/env python3
"""Medians, ratios and a plot of what scripts/bench.sh sampled.

usage: report.py SAMPLES.TSV [--bars] [--output DIR]

Prints a Markdown table, and whether the project's bars hold if asked to. With --output it also writes table.md and
plot.svg. A sample is a line of round, link, peer, measure, value; lines that begin with # say what was measured where.
"""

import argparse
import html
import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

OURS = "hivevpn"
NEW = "wireguard-go-new"


class Column(NamedTuple):
    """One column of the table: measures that are read together."""

    title: str
    unit: str
    measures: tuple[str, ...]
    scale: float = 1.0  # from the samples' unit to this one

    def heading(self) -> str:
        return f"{self.title}, {self.unit}"


COLUMNS = (
    Column("TCP, 1 · 8 streams", "Gbit/s", ("tcp1", "tcp8")),
    Column("both ways", "Gbit/s", ("bidi",)),
    Column("CPU, 1 · 8 streams", "s/GB", ("tcp1_cpu", "tcp8_cpu")),
    Column("64-byte UDP", "kpps", ("u64",)),
    Column("ping p50", "µs", ("ping_p50",)),
    Column("ping under load p50 · p99", "ms", ("load_p50", "load_p99"), 1e-3),
    Column("RSS idle · peak", "MB", ("idle_rss", "peak_rss")),
    Column("idle CPU", "%", ("idle_cpu",)),
)
LOSSY_COLUMNS = (
    Column("4 streams", "Mbit/s", ("tcp4",), 1e3),
    Column("ping p50", "ms", ("ping_p50",), 1e-3),
    Column("ping under load p50 · p99", "ms", ("load_p50", "load_p99"), 1e-3),
)


class Samples:
    """The samples by what was measured where, and what is known of the run."""

    def __init__(self, path: Path):
        self.facts: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for line in path.read_text().splitlines():
            if line.startswith("# "):
                key, value = line[2:].split("\t", 1)
                if key.startswith("peer "):
                    self.names[key.removeprefix("peer ")] = value
                else:
                    self.facts[key] = value
            else:
                _round, link, peer, measure, value = line.split("\t")
                self.values[link, peer, measure].append(float(value))

    def median(self, link: str, peer: str, measure: str) -> float | None:
        values = self.values.get((link, peer, measure))
        return statistics.median(values) if values else None

    def spread(self, link: str, peer: str, measure: str) -> tuple[float, float]:
        values = self.values[link, peer, measure]
        return min(values), max(values)

    def ratio(self, measure: str, other: str, link: str = "veth") -> float | None:
        """Ours over another peer's."""
        ours, theirs = self.median(link, OURS, measure), self.median(link, other, measure)
        return ours / theirs if ours is not None and theirs else None

    def peers(self, link: str) -> list[str]:
        """Those measured on a link, in the order of the run."""
        seen = {peer for at, peer, _ in self.values if at == link}
        return [peer for peer in self.names if peer in seen]

    def failures(self) -> list[str]:
        """What could not be measured, in sentences."""
        sentences = []
        for (link, peer, measure), values in self.values.items():
            if measure.startswith("failed"):
                what = measure.removeprefix("failed").lstrip("_") or "start"
                sentences.append(f"{self.names[peer]}, {link}: {what} failed in {len(values)} of the rounds.")
        return sentences


# --- table ------------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits, as a person would write them."""
    if value is None:
        return "–"
    for limit, digits in ((10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}".replace(",", " ")


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def medians(samples: Samples, columns: tuple[Column, ...], rows: list[tuple[str, str, str]]) -> str:
    """A row is a title, a link and a peer. Columns without any sample are left out."""

    def cell(column: Column, link: str, peer: str) -> str:
        values = [samples.median(link, peer, measure) for measure in column.measures]
        if all(value is None for value in values):
            return "–"
        return " · ".join(number(None if value is None else value * column.scale) for value in values)

    used = [column for column in columns if any(cell(column, link, peer) != "–" for _, link, peer in rows)]
    return markdown(
        [""] + [column.heading() for column in used],
        [[title] + [cell(column, link, peer) for column in used] for title, link, peer in rows],
    )


def ratios(samples: Samples) -> str:
    """Ours divided by each other's."""
    others = [peer for peer in samples.peers("veth") if peer not in (OURS, "raw")]
    used = [
        column
        for column in COLUMNS
        if any(samples.ratio(measure, peer) for measure in column.measures for peer in others)
    ]

    def cell(column: Column, peer: str) -> str:
        return " · ".join(number(samples.ratio(measure, peer)) for measure in column.measures)

    return markdown(
        ["hivevpn ÷"] + [column.title for column in used],
        [[samples.names[peer]] + [cell(column, peer) for column in used] for peer in others],
    )


def rounds(samples: Samples) -> str:
    count = samples.facts["rounds"]
    return "one round" if count == "1" else f"{count} interleaved rounds"


def circumstances(samples: Samples) -> str:
    facts = samples.facts
    return (
        f"Medians of {rounds(samples)}, {facts['seconds']} s for each measurement; all nodes and {facts['iperf3']} on "
        f"{facts['cores']} cores of {facts['processor']}, Linux {facts['kernel']}, TCP {facts['congestion']}, "
        f"{facts['date']} (load before: {facts['load before']})."
    )


def table(samples: Samples) -> str:
    parts = [circumstances(samples) + "\n"]
    names = samples.names
    if peers := samples.peers("veth"):
        parts.append("One cable. CPU is that of all daemons, memory that of the larger one.\n")
        parts.append(medians(samples, COLUMNS, [(names[peer], "veth", peer) for peer in peers]))
        if OURS in peers and set(peers) - {OURS, "raw"}:
            parts.append(ratios(samples))
    if others := [link for link in ("stream", "relay") if samples.peers(link)]:
        parts.append("hivevpn where UDP is blocked, and where only a third node is reached by both:\n")
        parts.append(medians(samples, COLUMNS, [(link, link, OURS) for link in others]))
    if peers := samples.peers("lossy"):
        parts.append("A lossy link: round trip 40 ms, 50 Mbit/s, 0.3 % loss, queue 50 ms.\n")
        parts.append(medians(samples, LOSSY_COLUMNS, [(names[peer], "lossy", peer) for peer in peers]))
    if failures := samples.failures():
        parts.append("\n".join(f"- {sentence}" for sentence in failures) + "\n")
    return "\n".join(parts)


# --- bars -------------------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """Something the project wants to hold."""

    what: str
    reached: float | None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def sentence(self) -> str:
        bound, sign = (self.at_least, "≥") if self.at_least is not None else (self.at_most, "≤")
        if self.reached is None:
            verdict = "not measured"
        else:
            holds = self.reached >= bound if sign == "≥" else self.reached <= bound
            verdict = f"{'pass' if holds else 'FAIL'}: {number(self.reached)}{self.unit}"
        return f"- {self.what} {sign} {bound:g}{self.unit}: {verdict}"


def bars(samples: Samples) -> list[Bar]:
    ratio, ours = samples.ratio, lambda measure, link="veth": samples.median(link, OURS, measure)
    load_ours, load_bare = ours("load_p50", "lossy"), samples.median("lossy", "raw", "load_p50")
    added = (load_ours - load_bare) / 1e3 if load_ours is not None and load_bare is not None else None
    new, old = samples.names.get(NEW, "a newer wireguard-go"), samples.names.get("wireguard-go", "Debian's wireguard-go")
    return [
        Bar(f"one TCP stream ÷ {new}", ratio("tcp1", NEW), at_least=1.5, unit=" ×"),
        Bar(f"one TCP stream ÷ {old}", ratio("tcp1", "wireguard-go"), at_least=5, unit=" ×"),
        Bar("one TCP stream ÷ boringtun-cli as it comes", ratio("tcp1", "boringtun"), at_least=7, unit=" ×"),
        Bar("one TCP stream ÷ boringtun-cli with one thread", ratio("tcp1", "boringtun-1"), at_least=2.8, unit=" ×"),
        Bar(f"eight TCP streams ÷ {new}", ratio("tcp8", NEW), at_least=1.7, unit=" ×"),
        Bar(f"both ways at once ÷ {new}", ratio("bidi", NEW), at_least=1.6, unit=" ×"),
        Bar(f"64-byte UDP received ÷ {new}", ratio("u64", NEW), at_least=3, unit=" ×"),
        Bar(f"CPU-s/GB, one stream ÷ {new}", ratio("tcp1_cpu", NEW), at_most=0.55, unit=" ×"),
        Bar(f"CPU-s/GB, eight streams ÷ {new}", ratio("tcp8_cpu", NEW), at_most=0.55, unit=" ×"),
        Bar(f"ping p50 ÷ {new}", ratio("ping_p50", NEW), at_most=1, unit=" ×"),
        Bar(f"ping p99 under load ÷ {new}", ratio("load_p99", NEW), at_most=0.6, unit=" ×"),
        Bar("RSS of an idle node", ours("idle_rss"), at_most=30, unit=" MB"),
        Bar("RSS of a loaded node", ours("peak_rss"), at_most=60, unit=" MB"),
        Bar("an idle node's share of a core", ours("idle_cpu"), at_most=0.3, unit=" %"),
        Bar("relay, one TCP stream", ours("tcp1", "relay"), at_least=0.5, unit=" Gbit/s"),
        Bar("lossy link, four TCP streams ÷ bare link", ratio("tcp4", "raw", "lossy"), at_least=0.9, unit=" ×"),
        Bar("lossy link, ping under load − bare link's", added, at_most=5, unit=" ms"),
    ]


# --- plot -------------------------------------------------------------------------------------------------------------


class Panel(NamedTuple):
    title: str
    measure: str
    scale: float = 1.0


PANELS = (
    Panel("one TCP stream, Gbit/s: more is better", "tcp1"),
    Panel("eight TCP streams, Gbit/s: more is better", "tcp8"),
    Panel("both ways at once, Gbit/s: more is better", "bidi"),
    Panel("64-byte UDP received, kpps: more is better", "u64"),
    Panel("CPU seconds per GB: less is better", "tcp1_cpu"),
    Panel("ping p99 under load, ms: less is better", "load_p99", 1e-3),
    Panel("ping, idle, µs: less is better", "ping_p50"),
    Panel("memory at peak, MB: less is better", "peak_rss"),
)

PANEL_WIDTH, LABEL_WIDTH, BAR_WIDTH, GAP, ROW, HEAD = 436, 186, 196, 20, 19, 30

# One set of colours that stands out on white and on black alike, because an image in a page learns what its reader's
# system prefers, not what the page looks like.
STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #7d8590 }
  .title { font-weight: 600; font-size: 13px }
  .name { text-anchor: end }
  .ours { fill: #d18616; font-weight: 600 }
  .bar { fill: #8b949e; fill-opacity: .55 }
  .bar.ours { fill: #e09b13; fill-opacity: 1 }
  .spread { stroke: #6e7681; stroke-width: 1.5 }
  .note { font-size: 11px }
"""


def panel_svg(samples: Samples, panel: Panel, peers: list[str], left: int, top: int) -> list[str]:
    drawn = [peer for peer in peers if samples.median("veth", peer, panel.measure) is not None]
    widest = max(samples.spread("veth", peer, panel.measure)[1] for peer in drawn) or 1.0
    zero = left + LABEL_WIDTH
    svg = [f'<text class="title" x="{left}" y="{top + 14}">{panel.title}</text>']
    for place, peer in enumerate(drawn):
        middle = top + HEAD + place * ROW + ROW // 2
        value = samples.median("veth", peer, panel.measure)
        low, high = (zero + BAR_WIDTH * edge / widest for edge in samples.spread("veth", peer, panel.measure))
        ours = " ours" if peer == OURS else ""
        svg += [
            f'<text class="name{ours}" x="{zero - 8}" y="{middle + 4}">{html.escape(short(samples.names[peer]))}</text>',
            f'<rect class="bar{ours}" x="{zero}" y="{middle - 7}" width="{BAR_WIDTH * value / widest:.1f}" height="14" rx="2"/>',
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text class="value{ours}" x="{high + 6:.1f}" y="{middle + 4}">{number(value * panel.scale)}</text>',
        ]
    return svg


def short(name: str) -> str:
    """A pseudo-version of Go is its date: 0.0.20250522 is 2025."""
    words = [f"({word[4:8]})" if word.startswith("0.0.20") else word for word in name.split(" ")]
    return " ".join(words)


def plot(samples: Samples) -> str:
    peers = [peer for peer in samples.peers("veth") if peer != "raw"]
    panel_height = HEAD + len(peers) * ROW + GAP
    body: list[str] = []
    panels = [panel for panel in PANELS if any(samples.median("veth", peer, panel.measure) for peer in peers)]
    for place, panel in enumerate(panels):
        left = (place % 2) * (PANEL_WIDTH + GAP)
        body += panel_svg(samples, panel, peers, left, place // 2 * panel_height)
    height = (len(panels) + 1) // 2 * panel_height
    notes = [
        f"Medians of {rounds(samples)}; the line reaches from the lowest to the highest.",
        f"All nodes on one machine: {samples.facts['cores']} cores of {samples.facts['processor']}, "
        f"Linux {samples.facts['kernel']}, {samples.facts['date']}.",
    ]
    body += [
        f'<text class="note" x="0" y="{height + 8 + 16 * line}">{html.escape(note)}</text>'
        for line, note in enumerate(notes)
    ]
    width, height = 2 * PANEL_WIDTH + GAP, height + 34
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
        f"<title>hivevpn beside other tunnels</title>\n<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, metavar="SAMPLES.TSV")
    parser.add_argument("--bars", action="store_true", help="print which of the project's bars hold")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write table.md and plot.svg there")
    options = parser.parse_args()

    samples = Samples(options.samples)
    written = table(samples)
    print(written)
    if options.bars:
        print("Bars:\n")
        print("\n".join(bar.sentence() for bar in bars(samples)))
    if options.output:
        (options.output / "table.md").write_text(written)
        (options.output / "plot.svg").write_text(plot(samples))


if __name__ == "__main__":
    main()
