"""One training step of the official classes under PyTorch, for training.py. Runs in the official package's environment.

official_training.py MODEL THREADS FRAMES TEXT float32|bfloat16     prints a line of JSON
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the package prints, even during import; only the answer goes to the pipe
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from official import load  # noqa: E402
from record_training import CLIP, DECAY, SUB_WEIGHT, Lesson, losses_of  # noqa: E402


def main() -> None:
    folder, threads, frames, text, dtype = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    torch.set_num_threads(threads)
    model = load(folder, getattr(torch, dtype))
    network, talker = model.model, model.model.config.talker_config
    network.talker.get_text_embeddings().weight.requires_grad = False
    codes = np.random.default_rng(0).integers(
        0, talker.code_predictor_config.vocab_size, (frames, talker.num_code_groups)
    )
    ids = model._tokenize_texts([model._build_assistant_text(text)])[0][0].tolist()
    lesson = Lesson([ids], [codes], np.zeros(talker.hidden_size, np.float32))
    trained = [p for p in network.talker.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=DECAY)
    for _ in range(2):
        start, busy = time.perf_counter(), time.process_time()
        talker_loss, sub_loss = losses_of(network, lesson, range(1), "inference")
        (talker_loss + SUB_WEIGHT * sub_loss).backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimiser.step()
        optimiser.zero_grad()
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    found = {
        "about": f"everything, official classes under PyTorch, {dtype}",
        "trained": sum(p.numel() for p in trained),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "loss": float(talker_loss + SUB_WEIGHT * sub_loss.detach()),
    }
    ANSWERS.write(json.dumps(found) + "\n")
    ANSWERS.flush()


if __name__ == "__main__":
    main()
