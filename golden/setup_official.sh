#!/bin/sh
# Make the environment that the recorders run in: the official package on CPU PyTorch.
#
#     golden/setup_official.sh [DIR]      DIR: the virtual environment, default .venv-official
#
# Takes about two minutes and 1.7 GB. PYTHON names the interpreter (default python3; 3.11 recorded the store).
# pip takes torch from wherever it is set up to; without CUDA a CPU build is all that is needed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../.venv-official}

"${PYTHON:-python3}" -m venv "$venv"
pip="$venv/bin/python -m pip install --disable-pip-version-check --quiet"
$pip torch==2.13.0
$pip transformers==4.57.3 accelerate==1.12.0 librosa==0.11.0 einops
$pip --no-deps qwen-tts==0.1.1 # its other requirements serve the demo and the 25 Hz tokenizer

# The 25 Hz tokenizer, which is imported and never used, wants these at import time. Any use of a stub is an error.
stubs=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/official_stubs
for module in sox onnxruntime torchaudio torchaudio/compliance torchaudio/compliance/kaldi; do
    mkdir -p "$stubs/$module"
    cat > "$stubs/$module/__init__.py" <<'STUB'
def __getattr__(name):
    raise AttributeError(f"{__name__}.{name}: a stub, see golden/setup_official.sh")
STUB
done
echo "$stubs" > "$(dirname "$stubs")/official_stubs.pth"

"$venv/bin/python" - <<'CHECK'
from importlib.metadata import version
import qwen_tts
print(*(f"{name} {version(name)}" for name in ("qwen-tts", "torch", "transformers", "librosa", "numpy")), sep=", ")
CHECK
