"""The report of speed.py as Markdown tables and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from machine import FRAME

from qwen3tts_np.report.tables import Table, as_markdown

Report = dict[str, Any]


def markdown(report: Report) -> str:
    machine = report["machine"]
    stream = ", ".join(f"{rate:.1f} GB/s with {_threads(n)}" for n, rate in report["stream_gb_s"].items())
    title = (
        f"{report['model']} on {machine['cpu']}, {machine['cores']} cores, which read memory at {stream}. Medians of "
        f"{report['rounds']} rounds."
    )
    tables = [_decode(report), _batches(report), _codec(report), *_startup(report)]
    return "\n\n".join([title, *map(as_markdown, tables)]) + "\n"


def _threads(count: str) -> str:
    return f"{count} thread{'s' * (count != '1')}"


def _table(headers: Sequence[str], rows: list[list[str]]) -> Table:
    return Table("", headers, "l" + "r" * (len(headers) - 1), rows)


def _decode(report: Report) -> Table:
    official = report["official"].get("frame")
    headers = "format", "threads", "talker", "code predictor", "frame", "real-time factor", "read per frame"
    rows = []
    for row in report["rows"]:
        times = [f"{row[name]:.1f} ms" for name in ("talker_ms", "code_predictor_ms", "frame_ms")]
        read = [f"{row['frame_bytes'] / 1e9:.2f} GB", f"{row['share_of_stream']:.0%}"]
        ratio = f"{1e3 * official / row['frame_ms']:.1f}x" if official and "prefill_positions_s" in row else ""
        rows.append([row["format"], str(row["threads"]), *times, f"{row['real_time_factor']:.2f}", *read, ratio])
    if official:
        rows.append(["official float32", "", "", "", f"{1e3 * official:.1f} ms", f"{official / FRAME:.2f}", "", "", ""])
    return _table((*headers, "of the stream", "official / ours"), rows)


def _batches(report: Report) -> Table:
    """Frames per second of a batch against one item, and the other measurements with all threads."""
    codec = report["codec"].get("1", {}).get("decode CPU")
    alone = {row["format"]: row["frame_cpu_ms"] for row in report["rows"] if row["threads"] == 1}
    headers = "format", "batch of 2", "4", "8", "prompt", "load", "RTF, text to samples", "CPU ms per frame, one thread"
    rows = []
    for row in (row for row in report["rows"] if "prefill_positions_s" in row):
        name = row["format"]
        prompt = [f"{row['prefill_positions_s']:.0f} positions/s", f"{report['load_s'][name]:.1f} s"]
        cpu = f"{alone[name] + 1e3 * codec * FRAME / report['codec_seconds']:.0f}" if codec and name in alone else ""
        whole = [f"{row['pipeline_real_time_factor']:.2f}", cpu]
        rows.append([name, *(f"{row[f'batch_{n}']:.1f}x" for n in (2, 4, 8)), *prompt, *whole])
    return _table(headers, rows)


def _codec(report: Report) -> Table:
    official, seconds = report["official"], report["codec_seconds"]
    headers = ["codec, of the audio's length", *map(_threads, report["codec"]), "official / ours"]
    most = list(report["codec"].values())[-1]
    rows = []
    for name in (name for name in most if not name.endswith(" CPU")):
        theirs = official.get(name.split(",")[0])
        shares = [f"{runs[name] / seconds:.3f}" for runs in report["codec"].values()]
        rows.append([name, *shares, f"{theirs / most[name]:.1f}x" if theirs else ""])
    return _table(headers, rows)


def _startup(report: Report) -> Iterator[Table]:
    if not report["startup"]:
        return
    first = "first sound, kernels compiled", "first sound, kernels cached"
    rows = []
    for name, runs in report["startup"].items():
        cold, warm = runs["cold"], runs["warm"]
        times = warm["import"], warm["load"], cold["first_sound"], warm["first_sound"]
        last = [f"{warm['second_sound']:.2f} s", f"{warm['peak_bytes'] / 1e9:.2f} GB"]
        rows.append([name, *(f"{seconds:.1f} s" for seconds in times), *last])
    yield _table(("a fresh process", "import", "load", *first, "second sound", "most memory"), rows)


def plot(report: Report, path: Path) -> None:
    """Bar chart of milliseconds per frame, with the real-time limit; skipped without matplotlib."""
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
    axes.set_xlabel("milliseconds per frame, codec not counted")
    axes.set_title(f"{report['model']}, {report['machine']['cpu']}")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path, dpi=110)
