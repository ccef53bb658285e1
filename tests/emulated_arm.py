"""The tests on 64-bit ARM, emulated on x86-64: what is computed, not how fast.

    python tests/emulated_arm.py FOLDER                                  # the bytes, and the tests named below
    python tests/emulated_arm.py FOLDER --cpu cortex-a72 --only-bytes
    python tests/emulated_arm.py FOLDER --cpu neoverse-n1 tests/test_kernels_conv.py -k "not again"

FOLDER gets, once, a Python for ARM with what the project needs: 600 MB of Debian packages and wheels, unpacked and not
installed, so that neither chroot nor binfmt_misc is needed. The emulator finds libraries there (-L), and a program that
is started as ``sys.executable`` comes back to it. It needs Python 3.11, whose wheels these are, and two packages of
Debian: apt-get install qemu-user-static mmdebstrap

Each CPU has another entry of the table of instruction sets. Hashes of packed weights, converted checkpoints and samples
are compared with those of this machine (``test_same_bits.py``). All is run here first, and the kernels that it needed
are compiled here for the other CPU (``cross_compile.py``): emulated, compiling takes ten times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from qwen3tts_np.synthetic.weights import write_checkpoint

ROOT = Path(__file__).parents[1]
CPUS = {"max": "NEON with i8mm", "neoverse-n1": "NEON with dotprod", "cortex-a72": "NEON"}
TESTS = (
    "test_rope.py test_simd.py test_kernels_linear.py test_kernels_conv.py test_kernels_decode.py "
    "test_kernels_batch.py test_codec_compiled.py test_parity.py"
).split()
CHOSEN = "not [reference] and (not test_parity or test_compiled_codes and bfloat16)"
"""Of these what is compiled: NumPy and its BLAS, emulated, take long, and would be tested instead of this package."""
DEBIAN = "python3,python3-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,libgomp1,zlib1g"
WRAPPER = """#!/bin/sh
here="{here}"
export QEMU_CPU="${{QEMU_CPU:-max}}" PYTHONHOME="$here/root/usr" PYTHONNOUSERSITE=1
export PYTHONPATH="$PYTHONPATH:$here/site" NUMBA_CACHE_DIR="$here/cache"
exec qemu-aarch64-static -L "$here/root" -0 "$here/arm-python" "$here/root/usr/bin/python3.11" "$@"
"""


def python_in(folder: Path) -> Path:
    """The emulated Python, made if it is not there."""
    missing = [name for name in ("qemu-aarch64-static", "mmdebstrap") if shutil.which(name) is None]
    if missing or sys.version_info[:2] != (3, 11):
        sys.exit("it needs Python 3.11, and: apt-get install qemu-user-static mmdebstrap")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "root").exists():
        _make(
            folder / "root",
            "mmdebstrap",
            "--variant=extract",
            "--architectures=arm64",
            f"--include={DEBIAN}",
            "bookworm",
        )
    if not (folder / "site").exists():
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34)]
        abis = [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
        pip = [sys.executable, "-m", "pip", "-q", "install", "--only-binary=:all:", "--implementation=cp"]
        pip += ["--python-version=3.11", "--platform=manylinux2014_aarch64", *platforms, *abis, *requirements()]
        _make(folder / "site", *pip, "--target")
    wrapper = folder / "arm-python"
    wrapper.write_text(WRAPPER.format(here=folder), encoding="utf-8")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return wrapper


def requirements() -> list[str]:
    """Of the project, and of its tests."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


def _make(place: Path, *command: str) -> None:
    """Run a command that makes a folder, the last argument: completely or not at all."""
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    subprocess.run([*command, str(unfinished)], check=True)
    unfinished.rename(place)


def compile_ahead(emulated: Path, cpu: str) -> None:
    """Compile, for the emulated CPU, the kernels that this machine has in its cache."""
    program = "import json, sys; from qwen3tts_np_kernels.machine_code import target; "
    program += "print(json.dumps([json.dumps(target()), sys.version]))"
    asked = [str(emulated), "-c", program]
    there = json.loads(subprocess.run(asked, env=environment(cpu), stdout=subprocess.PIPE, check=True).stdout)
    folder = emulated.with_name("cache")
    subprocess.run(
        [sys.executable, str(ROOT / "tests" / "cross_compile.py"), str(folder), *there], env=environment(), check=True
    )


def environment(cpu: str = "") -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "kernels", "tests"))
    return {**os.environ, "PYTHONPATH": paths, "QEMU_CPU": cpu}


def bytes_of(python: str, cpu: str, tiny: Path) -> list[str]:
    """Hashes, as ``test_same_bits.py`` prints them, after the entry of the table that they were computed with."""
    program = "import runpy; from qwen3tts_np_kernels.cpu import CPU; print(CPU.name, flush=True); "
    program += "runpy.run_module('test_same_bits', run_name='__main__', alter_sys=True)"
    command = [python, "-c", program, str(tiny)]
    return subprocess.run(
        command, env=environment(cpu), stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def compare(emulated: Path, cpus: list[str]) -> bool:
    """Print, for each CPU, whether its bytes are those of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder, "tiny")
        write_checkpoint(tiny, "tiny", "custom_voice")
        name, *here = bytes_of(sys.executable, "", tiny)
        print(f"here: {name}, {len(here)} hashes", flush=True)
        same = True
        for cpu in cpus:
            compile_ahead(emulated, cpu)
            name, *there = bytes_of(str(emulated), cpu, tiny)
            differ = [one for one, other in zip(there, here, strict=True) if one != other]
            same &= not differ and name == CPUS[cpu]
            print(f"{cpu}: {name}, {', '.join(differ) or 'the same bytes'}", flush=True)
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--cpu", action="append", choices=CPUS, help="one of them; may be repeated (default: all)")
    parser.add_argument("--only-bytes", action="store_true", help="no tests")
    options, tests = parser.parse_known_args()
    emulated, cpus = python_in(options.folder.resolve()), options.cpu or list(CPUS)
    good = True if tests else compare(emulated, cpus)
    if options.only_bytes:
        return 0 if good else 1
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--hypothesis-profile", "few"]
    pytest += tests or [*(str(ROOT / "tests" / name) for name in TESTS), "-k", CHOSEN]
    for python, cpu in [(sys.executable, ""), *((str(emulated), cpu) for cpu in cpus)]:
        if cpu:
            compile_ahead(emulated, cpu)
        print(f"{cpu}: {CPUS[cpu]}" if cpu else "here", flush=True)
        good &= subprocess.run([python, *pytest], env=environment(cpu), cwd=ROOT).returncode == 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
