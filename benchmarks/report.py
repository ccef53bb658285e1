"""The report of speed.py as Markdown tables and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import FRAME

Report = dict[str, Any]


def markdown(report: Report) -> str:
    machine = report["machine"]
    stream = ", ".join(f"{rate:.1f} GB/s with {_threads(n)}" for n, rate in report["stream_gb_s"].items())
    title = (
        f"{report['model']} on {machine['cpu']}, {machine['cores']} cores, which read memory at {stream}. Medians of "
        f"{report['rounds']} rounds."
    )
    parts = [_decode(report), _batches(report), _codec(report), _startup(report)]
    return "\n\n".join([title, *("\n".join(part) for part in parts if part)]) + "\n"


def _threads(count: str) -> str:
    return f"{count} thread{'s' * (count != '1')}"


def _table(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|---|{'--:|' * (len(columns) - 1)}"


def _decode(report: Report) -> list[str]:
    official = report["official"].get("frame")
    columns = "format", "threads", "talker", "code predictor", "frame", "real-time factor", "read a frame"
    lines = list(_table(*columns, "of the stream", "official / ours"))
    for row in report["rows"]:
        ratio = f"{1e3 * official / row['frame_ms']:.1f}x" if official and "prefill_positions_s" in row else ""
        lines.append(
            f"| {row['format']} | {row['threads']} | {row['talker_ms']:.1f} ms | {row['code_predictor_ms']:.1f} ms "
            f"| {row['frame_ms']:.1f} ms | {row['real_time_factor']:.2f} | {row['frame_bytes'] / 1e9:.2f} GB "
            f"| {row['share_of_stream']:.0%} | {ratio} |"
        )
    if official:
        lines.append(f"| official float32 | | | | {1e3 * official:.1f} ms | {official / FRAME:.2f} | | | |")
    return lines


def _batches(report: Report) -> list[str]:
    """Frames a second of a batch against one item, and what else needs all threads."""
    rows = [row for row in report["rows"] if "prefill_positions_s" in row]
    codec = report["codec"].get("1", {}).get("decode CPU")
    alone = {row["format"]: row["frame_cpu_ms"] for row in report["rows"] if row["threads"] == 1}
    columns = "format", "batch of 2", "4", "8", "prompt", "load", "text to samples", "CPU ms a frame, one thread"
    lines = list(_table(*columns))
    for row in rows:
        name = row["format"]
        batches = " | ".join(f"{row[f'batch_{n}']:.1f}x" for n in (2, 4, 8))
        cpu = f"{alone[name] + 1e3 * codec * FRAME / report['codec_seconds']:.0f}" if codec and name in alone else ""
        lines.append(
            f"| {name} | {batches} | {row['prefill_positions_s']:.0f} positions/s | {report['load_s'][name]:.1f} s "
            f"| {row['pipeline_real_time_factor']:.2f} of real time | {cpu} |"
        )
    return lines


def _codec(report: Report) -> list[str]:
    official, seconds = report["official"], report["codec_seconds"]
    lines = list(_table("codec, of the audio's length", *map(_threads, report["codec"]), "official / ours"))
    most = list(report["codec"].values())[-1]
    for name in (name for name in most if not name.endswith(" CPU")):
        theirs = official.get(name.split(",")[0])
        shares = " | ".join(f"{runs[name] / seconds:.3f}" for runs in report["codec"].values())
        lines.append(f"| {name} | {shares} | {f'{theirs / most[name]:.1f}x' if theirs else ''} |")
    return lines


def _startup(report: Report) -> list[str]:
    if not report["startup"]:
        return []
    first = "first sound, kernels compiled", "first sound, kernels cached"
    lines = list(_table("a fresh process", "import", "load", *first, "second sound", "most memory"))
    for name, runs in report["startup"].items():
        cold, warm = runs["cold"], runs["warm"]
        lines.append(
            f"| {name} | {warm['import']:.1f} s | {warm['load']:.1f} s | {cold['first_sound']:.1f} s "
            f"| {warm['first_sound']:.1f} s | {warm['second_sound']:.2f} s | {warm['peak_bytes'] / 1e9:.2f} GB |"
        )
    return lines


def plot(report: Report, path: Path) -> None:
    """Milliseconds a frame, bar by bar, against real time; nothing without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(f"{r['format']}, {r['threads']} thread{'s' * (r['threads'] > 1)}", r) for r in report["rows"]]
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(rows) + 2), layout="constrained")
    names, talker = [name for name, _ in rows], [r["talker_ms"] for _, r in rows]
    axes.barh(names, talker, color="0.25", label="talker")
    axes.barh(names, [r["code_predictor_ms"] for _, r in rows], left=talker, color="0.65", label="code predictor")
    if official := report["official"].get("frame"):
        axes.barh(["official float32"], [1e3 * official], color="0.9", edgecolor="0.25", hatch="//", label="official")
    axes.axvline(1e3 * FRAME, color="black", linestyle="--", label="real time (80 ms)")
    axes.set_xlabel("milliseconds a frame, codec not counted")
    axes.set_title(f"{report['model']}, {report['machine']['cpu']}")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path, dpi=110)
