"""Speak with the graphs that ``qwen3tts-np export onnx`` writes: onnxruntime, NumPy and tokenizers, nothing else.

    python speak_onnx.py GRAPHS hello.wav '{"text": "Hello.", "speaker": "vivian", "seed": 1}'
    python speak_onnx.py GRAPHS hello.wav '{"text": "Hello.", "ref_audio": "ada.wav", "ref_text": "What Ada says."}'

README.md beside this file says the same in words, for a port. The codes are written beside the sound.
"""

import functools
import json
import sys
import time
import wave
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers

value = onnxruntime.OrtValue.ortvalue_from_numpy


class Graph:
    """One graph. What it carries from call to call are its inputs ``*.past`` and its outputs ``*.present``."""

    def __init__(self, folder, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self.outputs = [x.name for x in self.session.get_outputs()]
        self.begin()

    def begin(self):
        """Forget what was carried: zeros, and no positions where their number is not fixed."""
        states = [x for x in self.session.get_inputs() if x.name.endswith(".past")]
        sizes = [[n if isinstance(n, int) else 0 for n in x.shape] for x in states]
        self.state = {x.name: value(np.zeros(size, np.float32)) for x, size in zip(states, sizes, strict=True)}

    def __call__(self, *given):
        """Arrays in the order of the inputs -> arrays in the order of the outputs."""
        names = [x.name for x in self.session.get_inputs() if x.name not in self.state]
        inputs = self.state | dict(zip(names, map(value, given), strict=True))
        found = dict(zip(self.outputs, self.session.run_with_ort_values(self.outputs, inputs), strict=True))
        self.state = {name: found[name[:-4] + "present"] for name in self.state}
        return [x.numpy() for name, x in found.items() if not name.endswith(".present")]


def softmax(x):
    return (e := np.exp(x - x.max())) / e.sum()


def choose(scores, twister, do_sample, temperature, top_k, top_p):
    """The official processors, then ``torch.multinomial`` as it draws on a CPU. scores [n] -> one of n."""
    if not do_sample:
        return int(scores.argmax())
    scores = scores / np.float32(temperature)
    if top_k:
        scores[scores < np.sort(scores)[-min(top_k, len(scores))]] = -np.inf
    if top_p < 1:
        order = scores.argsort(kind="stable")
        total = softmax(scores[order]).cumsum(dtype=np.float64).astype(np.float32)
        scores[order[:-1][total[:-1] <= np.float32(1 - top_p)]] = -np.inf
    words = twister.randint(0, 2**32, size=(len(scores), 2), dtype=np.uint32)
    uniform = ((words[:, 0] & 0x1FFFFF) * 2.0**32 + words[:, 1]) * 2.0**-53
    return int((softmax(scores) / -np.log1p(-uniform).astype(np.float32)).argmax())


def prompt(config, s, encode, frames):
    """Rows (text id, codes at the same position), the text ids of later frames, and the row of the speaker's vector."""
    c, pad = config["talker_config"], config["tts_pad_token_id"]
    none = [-1] * (c["num_code_groups"] - 1)
    ids = encode(f"<|im_start|>assistant\n{s['text']}<|im_end|>\n<|im_start|>assistant\n")
    words = [*ids[3:-5], config["tts_eos_token_id"]]
    instruct = encode(f"<|im_start|>user\n{s['instruct']}<|im_end|>\n") if s["instruct"] else []
    rows = [(i, [-1, *none]) for i in instruct + ids[:3]]
    dialect = c["spk_is_dialect"].get(s["speaker"]) if s["language"] in ("auto", "chinese") else None
    tag = c["codec_language_id"].get(dialect or s["language"])
    codes = [c["codec_nothink_id" if tag is None else "codec_think_id"], c["codec_think_bos_id"]]
    codes += [c["codec_think_eos_id"]] if tag is None else [tag, c["codec_think_eos_id"]]
    codes += [c["spk_id"][s["speaker"]]] if s["speaker"] else [-1] * bool(s["ref_audio"])
    bos, filler = [c["codec_bos_id"], *none], [c["codec_pad_id"], *none]
    rows += [(pad, [code, *none]) for code in codes] + [(config["tts_bos_token_id"], filler)]
    if frames is not None:  # in context: what the clip says, and its frames
        words = encode(f"<|im_start|>assistant\n{s['ref_text']}<|im_end|>\n")[3:-2] + words
    elif s["streaming"] and len(words) == 1:  # no text: the official slice then has <|im_end|>
        words = [ids[3], *words]
    beside = [bos] + ([] if frames is None else frames.tolist())
    if not s["streaming"]:
        return rows + [(i, filler) for i in words] + [(pad, row) for row in beside], [], len(rows) - 2
    under = words[: len(beside)] + [pad] * (len(beside) - len(words))
    return rows + list(zip(under, beside, strict=True)), words[len(beside) :], len(rows) - 2


def speak(graph, config, s, encode):
    """The codes of the text [frames, G], and those of the clip that they continue, or None."""
    c, frames, speaker = config["talker_config"], None, 0
    if s["ref_audio"]:
        with wave.open(s["ref_audio"]) as file:  # mono, 16 bits, 24 kHz
            clip = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        speaker, frames = graph("speaker_encoder")(clip)[0], graph("codec_encoder")(clip)[0] if s["ref_text"] else None
    text, embed, talker, predictor = map(graph, ("text", "frame_embedding", "talker", "code_predictor"))
    rows, later, place = prompt(config, s, encode, frames)
    x, position = text(np.array([i for i, _ in rows]))[0], np.arange(len(rows))
    x += embed(np.array([codes for _, codes in rows]))[0]
    x[place] += speaker
    later = text(np.array([*later, config["tts_pad_token_id"]]))[0]
    first, rest = [[s[p + n] for n in ("temperature", "top_k", "top_p")] for p in ("", "subtalker_")]
    twister, penalty = np.random.RandomState(s["seed"] & 0xFFFFFFFF), np.float32(s["repetition_penalty"])
    seen, written, ids, eos = np.zeros(c["vocab_size"], bool), [], np.arange(c["vocab_size"]), c["codec_eos_token_id"]
    for step in range(s["max_new_tokens"]):
        hidden, (scores,) = talker(x, position)
        scores = np.where(seen, np.where(scores < 0, scores * penalty, scores / penalty), scores)
        scores[(ids >= len(ids) - 1024) & (ids != eos) | (ids == eos) & (step < 2)] = -np.inf  # marks and languages
        codes = np.full((1, c["num_code_groups"]), -1)
        codes[0, 0] = choose(scores, twister, s["do_sample"], *first)
        seen[codes[0, 0]] = True
        if codes[0, 0] == eos or step == s["max_new_tokens"] - 1:
            break
        predictor.begin()
        x, at = np.concatenate([hidden[-1:], embed(codes)[0]]), np.arange(2)
        for g in range(1, codes.size):
            ((scores,),) = predictor(x, at, np.array([g - 1]))
            codes[0, g] = choose(scores, twister, s["subtalker_dosample"], *rest)
            x, at = embed(np.where(np.arange(codes.size) == g, codes, -1))[0], at[-1:] + 1
        written.append(codes[0])
        x, position = embed(codes)[0] + later[min(step, len(later) - 1)], position[-1:] + 1
    return np.array(written, np.int64).reshape(-1, codes.size), frames


def main():
    folder, output, request = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    config, defaults = (json.loads((folder / f"{n}.json").read_bytes()) for n in ("config", "generation_config"))
    s = {"speaker": "", "instruct": "", "language": "auto", "ref_audio": "", "ref_text": "", "streaming": False}
    s |= {"seed": 0, "chunk": 4, "threads": 0} | defaults | request
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    graph, start = functools.cache(lambda name: Graph(folder / name, s["threads"])), time.perf_counter()
    codes, before = speak(graph, config, s, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    print(f"{len(codes)} frames in {time.perf_counter() - start:.2f} s")
    np.save(output.with_suffix(".npy"), codes)
    heard, chunk = codes if before is None else np.concatenate([before, codes]), s["chunk"]
    parts = [graph("codec_decoder")(heard[i : i + chunk])[0].ravel() for i in range(0, len(heard), chunk)]
    samples = np.concatenate([np.zeros(0), *parts])[1920 * (len(heard) - len(codes)) :]  # without the clip
    with wave.open(str(output), "wb") as file:
        file.setparams((1, 2, 24000, 0, "NONE", ""))
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
