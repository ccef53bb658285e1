"""One-line faults, each planted alone, and whether the tests that should see it do: those that survive are printed.

    python tests/mutants.py                # all of them, a few minutes; exits 1 if one survives
    python tests/mutants.py --list
    python tests/mutants.py --only rope    # those whose place, line or tests contain "rope"

Nothing is written into the working tree: every mutant runs in a process of its own, in which the import of the one
module compiles the changed text. A mutant is found by the text of its line, wherever in its folder that is, so a line
that was rewritten is reported and must be rewritten here as well (``test_mutants.py`` looks, too).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PATIENCE = 600  # s: a mutant that never ends is found as well
FAILED = 1  # the status of pytest when tests ran and some failed; any other but 0 means that they could not run


@dataclass(frozen=True)
class Mutant:
    """``line`` occurs once in the Python files of ``place``, a folder or file; ``tests`` fail with ``instead``."""

    place: str
    line: str
    instead: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.place}: {self.line}  ->  {self.instead}"

    def file(self) -> Path:
        """Where it is planted. LookupError unless there is exactly one such line."""
        place = ROOT / self.place
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        counts = {file: file.read_text(encoding="utf-8").count(self.line) for file in files}
        if sum(counts.values()) != 1:
            raise LookupError(f"{self.name}\n  the line is there {sum(counts.values())} times; it must be once")
        return max(counts, key=lambda file: counts[file])


def mutants(place: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
    """``tests`` are files, or files with tests (``test_x.py::test_y``), separated by blanks."""
    return [Mutant(place, line, instead, tuple(tests.split())) for line, instead in changes]


PLAIN = "test_parity.py::test_every_activation[activations_custom_voice]"
CLONE = "test_parity.py::test_every_activation[activations_clone]"
WIDE = "test_parity.py::test_every_activation[activations_instruct]"
SAMPLING = "test_sampling.py"

MUTANTS: list[Mutant] = [
    # ---- scripts ----
    *mutants(
        "qwen3tts_np/text",
        "test_script.py::test_what_is_read test_script.py::test_what_is_refused",
        ("(1000 if found[2]", "(100 if found[2]"),
        ("if ms == int(ms) and ms <= LONGEST_PAUSE", "if ms <= LONGEST_PAUSE"),
        ("if ms == int(ms) and ms <= LONGEST_PAUSE", "if ms == int(ms)"),
        ('if mark["escape"]:', "if False:"),
        ("self._spans[-2].voice == name:", "False:"),
        ("opens=max(last.opens, kind)", "opens=kind"),
        ("self.parser.StartDoctypeDeclHandler = _refuse_doctype", "pass"),
        ("if parent not in (_INSIDE[name] or (None,)):", "if False:"),
        (
            "return Break.PARAGRAPH\n    if _LINE_ENDS.search(gap)",
            "return Break.SENTENCE\n    if _LINE_ENDS.search(gap)",
        ),
    ),
    *mutants(
        "qwen3tts_np/text/lexicon.py",
        "test_script.py::test_whole_words_are_respelled_the_longest_first "
        "test_script.py::test_a_text_in_pieces_is_respelled_as_the_whole",
        ("reverse=True) for first", "reverse=False) for first"),
        ("and len(found) == length", "and True"),
        ("if start < done or", "if"),
        ("(words, beginning)\n            for", "(words, beginning + beginning)\n            for"),
        ('or "\\u1160" <= c <= "\\u11ff"', ""),
    ),
    *mutants(
        "qwen3tts_np/speech",
        "test_script.py::test_what_is_read "
        "test_script.py::test_silence_is_exact_to_the_sample_and_joins_do_not_click "
        "test_script.py::test_each_piece_has_its_voice_and_the_seed_of_its_number",
        ("asked = (asked or 0) + span.silence", "asked = span.silence"),
        ("and not (pieces[0].pause or pieces[0].after)", ""),
        (
            "takes = [Take(piece, voices[piece.voice], seed, alone) for",
            "takes = [Take(piece, delivery, seed, alone) for",
        ),
        ("if take.piece.after:", "if False:"),
    ),
    *mutants(
        "qwen3tts_np/audio",
        "test_tempo.py::test_packets_of_any_size_give_the_same_samples "
        "test_tempo.py::test_pitch_stays_and_length_is_that_of_the_tempo",
        ("while len(self._held) >= self._block:", "while len(self._held):"),
        ("parts = 1 if tempo >= LEAST_OF_A_FILTER else 2", "parts = 1"),
    ),
    *mutants(
        "qwen3tts_np/audio",
        "test_loudness.py",
        ("if gain > most:", "if False:"),
        ("OVERSAMPLED, PART, OVERLAP = 4, 240_000, 64", "OVERSAMPLED, PART, OVERLAP = 4, 240_000, 0"),
        ("10 ** ((target - measured) / 20)", "10 ** ((target - measured) / 10)"),
    ),
    *mutants(
        "qwen3tts_np/voice/mix.py",
        "test_voice_mix.py",
        (
            "math.sin((1 - share) * angle) * u + math.sin(share * angle) * v",
            "math.sin(share * angle) * u + math.sin((1 - share) * angle) * v",
        ),
        ("if angle > OPPOSITE:", "if False:"),
        ("(1 - share) * lengths[0] + share * lengths[1]", "lengths[0]"),
    ),
    # ---- text ----
    *mutants(
        "qwen3tts_np/text",
        "test_prompt.py",
        (
            'if name in ("chinese", "auto") and isinstance(dialect, str)',
            'if name == "chinese" and isinstance(dialect, str)',
        ),
        ('if name in ("chinese", "auto") and isinstance(dialect, str)', "if isinstance(dialect, str)"),
        ('or "dialect" in name:', "or False:"),
    ),
    *mutants(
        "qwen3tts_np/text",
        "test_text.py test_text_official.py",
        ("ROLE = 3", "ROLE = 2"),
        ("TEXT_TAIL = 5", "TEXT_TAIL = 4"),
        ("REFERENCE_TAIL = 2", "REFERENCE_TAIL = 1"),
        ('if lines[0].startswith("#version:"):', 'if lines[0].startswith("#"):'),
        ("backend.normalizer = normalizers.NFC()", "backend.normalizer = normalizers.NFKC()"),
        ("if vocab_size <= 100_000 or", "if vocab_size < 100_000 or"),
        ('_version_key("4.57.2", config_file)', '_version_key("4.57.1", config_file)'),
    ),
    *mutants(
        "qwen3tts_np/text",
        "test_prompt.py",
        ("trailing = [*text.trailing, config.tts_eos_token_id]", "trailing = [*text.trailing]"),
        ("[pad] * (len(frames) - len(words))", "words[-1:] * (len(frames) - len(words))"),
        ('Position("bos", config.tts_pad_token_id, codec=c.codec_bos_id)', 'Position("bos", config.tts_pad_token_id)'),
        (
            'Position("pad", config.tts_bos_token_id, codec=c.codec_pad_id)',
            'Position("pad", config.tts_pad_token_id, codec=c.codec_pad_id)',
        ),
    ),
    *mutants(
        "qwen3tts_np/text",
        "test_text_feed.py",
        ("last = min(blanks, letters, literal)", "last = min(blanks, literal)"),
        ("last = min(blanks, letters, literal)", "last = min(blanks, letters)"),
    ),
    *mutants(
        "qwen3tts_np/text",
        "test_sentences.py",
        ("SLOWEST, SPARE = 3, 2000", "SLOWEST, SPARE = 2, 2000"),
        ("HAN = 220", "HAN = 120"),
    ),
    # ---- talker ----
    *mutants(
        "qwen3tts_np/talker",
        PLAIN,
        ("rms_norm(q, w.q_norm, c.rms_norm_eps)", "q"),
        ("rotate(k, *rope)", "k"),
        ("np.arange(start, start + len(x))", "np.arange(len(x))"),
        (
            "silu(linear(x, w.text_projection_fc1, w.text_projection_fc1_bias))",
            "linear(x, w.text_projection_fc1, w.text_projection_fc1_bias)",
        ),
        (
            "inputs = np.stack([hidden, code0_embedding], axis=1)",
            "inputs = np.stack([code0_embedding, hidden], axis=1)",
        ),
        (
            "self._k[:start], self._v[:start] = old_k[:start], old_v[:start]",
            "self._k[:start], self._v[:start] = old_k[:start], 0",
        ),
    ),
    *mutants(
        "qwen3tts_np/talker",
        WIDE,
        ("if w.small_to_mtp_projection_weight is None:", "if w.small_to_mtp_projection_weight is not None:"),
    ),
    *mutants(
        "qwen3tts_np/talker",
        SAMPLING,
        ("MIN_NEW_TOKENS = 2", "MIN_NEW_TOKENS = 1"),
        ("CONTROL_TOKENS = 1024", "CONTROL_TOKENS = 1023"),
        ("np.where(logits < 0, logits * factor, logits / factor)", "logits / factor"),
        ("return _drop(scores, scores < kth_best)", "return _drop(scores, scores <= kth_best)"),
        ("out_of_set = cumulative <= p.dtype.type(1 - top_p)", "out_of_set = cumulative < p.dtype.type(1 - top_p)"),
        ("out_of_set[..., -1] = False", "out_of_set[..., 0] = False"),
        ("cumsum(axis=-1, dtype=np.float64)", "cumsum(axis=-1)"),
        ("if step < MIN_NEW_TOKENS:", "if step <= MIN_NEW_TOKENS:"),
        ("out[..., eos] = scores[..., eos]", "pass"),
        ("self.seed & 0xFFFFFFFF", "self.seed & 0x7FFFFFFF"),
        ("words[..., 0] & 0x1FFFFF", "words[..., 0] & 0x0FFFFF"),
        ("-np.log1p(-uniform)", "-np.log(uniform)"),
        ("not -(2**63) <= value < 2**64", "not -(2**63) <= value <= 2**64"),
    ),
    *mutants(
        "qwen3tts_np/mlp.py",
        PLAIN,
        ("silu(gate)", "gate"),
    ),
    *mutants(
        "qwen3tts_np/generate.py",
        "test_model.py::test_n_new_tokens_are_n_minus_1_frames"
        " test_parity.py::test_codes_and_waveforms[custom_voice_streaming]"
        " test_parity.py::test_codes_and_waveforms[sampled_end_batch]",
        ("last_step: int = request.limits.max_new_tokens - 1", "last_step: int = request.limits.max_new_tokens"),
        ("min(self._frames, len(self._trailing) - 1)", "min(self._frames + 1, len(self._trailing) - 1)"),
        ("everyone[going] = logits", "everyone = logits"),
        ("self._seen[code0] = True", "pass"),
    ),
    # ---- codec ----
    *mutants(
        "qwen3tts_np/codec",
        f"{PLAIN} test_codec.py test_parity.py::test_decode[decode_340] test_parity.py::test_decode[decode_301]"
        " test_streaming.py::test_the_past_does_not_grow",
        ("CHUNK_FRAMES = 300", "CHUNK_FRAMES = 299"),
        ("CONTEXT_FRAMES = 25", "CONTEXT_FRAMES = 24"),
        ("DILATIONS = (1, 3, 9)", "DILATIONS = (1, 3, 8)"),
        ("CONVNEXT_EPS = 1e-6", "CONVNEXT_EPS = 1e-4"),
        ("np.arange(past.frames, past.frames + len(x))", "np.arange(len(x))"),
        ("np.clip(x, -1, 1)", "x"),
        ("a.T, window - 1).T", "a.T, window).T"),
        ("dequantise(codes[:, 1:], d.codebooks[1:]", "dequantise(codes[:, :-1], d.codebooks[1:]"),
    ),
    *mutants(
        "qwen3tts_np/codec",
        f"{CLONE} test_parity.py::test_encode",
        (
            'pad_causal(x, weight.shape[2], DOWNSAMPLE_STRIDE, mode="edge")',
            "pad_causal(x, weight.shape[2], DOWNSAMPLE_STRIDE)",
        ),
        ("self_attention(h, w.self_attn, rope, None, c", "self_attention(h, w.self_attn, rope, 8, c"),
        ("after = -x.shape[1] % stride", "after = 0"),
        ("residual = residual - quantised", "residual = residual"),
        ("zip(w.stages, reversed(c.upsampling_ratios)", "zip(w.stages, c.upsampling_ratios"),
    ),
    # ---- speaker ----
    *mutants(
        "qwen3tts_np/speaker",
        "test_speaker.py",
        ("TOP = 12000.0", "TOP = 11000.0"),
        ("+ 1e-9).astype(audio.dtype)", "+ 1e-7).astype(audio.dtype)"),
        ("np.maximum(mel, 1e-5)", "np.maximum(mel, 1e-6)"),
        ("PAD = (WINDOW - HOP) // 2", "PAD = WINDOW // 2"),
        ("np.arange(window) / window", "np.arange(window) / (window - 1)"),
        ("if i == 0 else chunk + outputs[-1]", "+ outputs[-1]"),
        ("np.sqrt(np.maximum(variance, 1e-12))", "np.sqrt(np.maximum(variance, 1e-6))"),
        ("return total // 2, total - total // 2", "return total - total // 2, total // 2"),
        ('dilation)), mode="reflect")', 'dilation)), mode="edge")'),
    ),
    # ---- checkpoint ----
    *mutants(
        "qwen3tts_np/checkpoint",
        "test_checkpoint.py test_convert.py",
        ("if length > min(_MAX_HEADER, size - 8):", "if length > _MAX_HEADER:"),
        ("if not start <= end <= data_bytes:", "if not start <= end:"),
        ("if end - start != needed:", "if end - start < needed:"),
        ("if start != at:", "if start < at:"),
        ("if at != data_bytes:", "if at > data_bytes:"),
        ("raise RepeatedName(name)", "pass"),
        ("if weight_map.get(name) != shard:", "if False:"),
        ("levels.astype(np.int16) + (1 << (bits - 1))", "levels.astype(np.int16) + (1 << bits)"),
        ("words[..., :bits] = stream", "words[..., -bits:] = stream"),
        ("if _HEADS.fullmatch(key):", "if False:"),
        ("if have.shape != spec.shape:", "if len(have.shape) != len(spec.shape):"),
    ),
    # ---- oracles of the kernels ----
    *mutants(
        "kernels/qwen3tts_np_kernels/rope.py",
        "test_rope.py test_parity.py::test_rotary_tables",
        ("positions.astype(np.float32)", "positions.astype(np.float64)"),
        ("exponents.astype(np.float64)).astype(np.float32)", "exponents.astype(np.float64))"),
        ("high * c + low * s", "high * c - low * s"),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels",
        f"{PLAIN} {CLONE}",
        ("visible = (age >= 0) & (age < (window or s))", "visible = (age >= -1) & (age < (window or s))"),
        ("np.repeat(x, heads // x.shape[1], axis=1)", "np.tile(x, (1, heads // x.shape[1], 1))"),
        ("x / np.sqrt(mean_square + eps) * weight", "x / (np.sqrt(mean_square) + eps) * weight"),
        ("np.mean(centred * centred, axis=-1, keepdims=True)", "centred.var(axis=-1, keepdims=True, ddof=1)"),
        ("x * (1 + erf(x / math.sqrt(2))) / 2", "x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))) / 2"),
        ("np.maximum(cluster_usage, 1e-5)", "cluster_usage"),
        ("wave * wave / (np.exp(beta)[:, None] + 1e-9)", "wave * wave / (np.exp(alpha)[:, None] + 1e-9)"),
        (
            "j : j + (frames - 1) * stride + 1 : stride] += weight[:, :, j]",
            "j : j + (frames - 1) * stride + 1 : stride] += weight[:, :, -j]",
        ),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels",
        "test_simd.py test_checkpoint.py",
        ("rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16", "rounded = (bits + 0x8000) >> 16"),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels/rvq.py",
        "test_codec.py test_kernels_conv.py",
        ("return distances.argmin(axis=1)", "return distances.shape[1] - 1 - distances[:, ::-1].argmin(axis=1)"),
    ),
    # ---- speech ----
    *mutants(
        "qwen3tts_np/speech",
        "test_longform.py::test_silence_at_the_edges_of_a_piece_is_cut"
        " test_longform.py::test_pauses_are_as_documented_and_nothing_clicks",
        ("ready[: self._fade] *= ramp(self._fade)", "ready[: self._fade] *= 1"),
        ("rate * EDGE // 1000, rate", "0, rate"),
    ),
    *mutants(
        "qwen3tts_np/speech",
        "test_speech_policy.py::test_the_rule_of_seeds"
        " test_speech_policy.py::test_the_guard_is_off_in_python_and_on_in_the_command_line"
        " test_speech_policy.py::test_edges_are_the_same_however_a_piece_arrives",
        ("if number == attempt == 0:", "if number == 0:"),
        ("seed & 0xFFFFFFFF", "seed"),
        ("frames >= bound", "frames > bound"),
        ("self._sure -= count", "self._sure = 0"),
    ),
    *mutants(
        "qwen3tts_np/speech",
        "test_longform.py::test_the_generation_configuration_is_in_the_key"
        " test_cli_speech.py::test_a_short_text_that_does_not_stop_is_tried_again_and_cut"
        " test_longform.py::test_a_folder_of_ones_own_stays_and_a_new_text_costs_what_is_new",
        ("kept = first if take.ran_away(len(last.codes)) else last", "kept = last"),
        ("fingerprint, request, seeds", "fingerprint, self.piece.text, seeds"),
        ("seeds = () if self.delivery.greedy else", "seeds ="),
    ),
    *mutants(
        "qwen3tts_np/audio/files.py",
        "test_audio.py",
        ("FULL_SCALE - 1)).astype", "FULL_SCALE)).astype"),
        ("np.rint(np.clip(wave", "np.floor(np.clip(wave"),
    ),
    # ---- voices, streams ----
    *mutants(
        "qwen3tts_np",
        "test_model.py::test_the_official_cut_of_cloning_in_context",
        ("/ max(len(spoken), 1) * len(wave)", "* len(wave) // max(len(spoken), 1)"),
    ),
    *mutants(
        "qwen3tts_np/request.py",
        "test_streaming.py",
        ("return frames > len(self.prompt.trailing)", "return frames >= len(self.prompt.trailing)"),
        ("return frames > len(self.prompt.trailing)", "return frames > 1 + len(self.prompt.trailing)"),
    ),
    # ---- marks, manifests, scores, comparisons ----
    *mutants(
        "qwen3tts_np/text/markup.py",
        "test_script.py::test_what_is_read test_script.py::test_what_is_refused",
        ("ms <= LONGEST_PAUSE", "ms < LONGEST_PAUSE"),
        ('1000 if found[2] == "s" else 1', "1000"),
        ("yield mark.group()[1:]", "yield mark.group()"),
        (
            "named = _NAMED.match(text, line.start(), line.end()) if line.start() or new_line else None",
            "named = _NAMED.match(text, line.start(), line.end())",
        ),
    ),
    *mutants(
        "qwen3tts_np/speech/script.py",
        "test_script.py::test_what_is_refused test_script.py::test_what_is_read",
        ("if silence > LONGEST_PAUSE:", "if silence > 2 * LONGEST_PAUSE:"),
    ),
    *mutants(
        "qwen3tts_np/batch/identity.py",
        "test_batch.py::test_shards_are_a_partition test_batch.py::test_seeds_and_shards_are_by_the_written_rule"
        " test_batch.py::test_the_shard_of_a_slurm_task test_batch.py::test_equal_ids_are_named_before_the_work"
        " test_batch.py::test_ids_that_cannot_be_names_of_files_are_named_before_the_work",
        ("number_of(name) % self.count + 1 == self.number", "number_of(name) % self.count == self.number"),
        ("return number_of(name) % self.count + 1 == self.number", "return True"),
        ('number_of(f"{seed}/{row.name}")', "number_of(row.name)"),
        ("if row.seed is None else row.seed", ""),
        ("(task - least) // step + 1", "task - least + 1"),
        ("least = min(task, 1)", "least = 1"),
        ("if len(name.encode()) > LONGEST:", "if len(name) > LONGEST:"),
        ('unicodedata.normalize("NFC", name).casefold()', 'unicodedata.normalize("NFC", name)'),
        ("if first != row.line:", "if False:"),
        ('or name.endswith((".", " "))', ""),
        ("if DEVICES.fullmatch(name):", "if False:"),
    ),
    *mutants(
        "qwen3tts_np/batch",
        "test_batch.py::test_a_row_is_what_say_makes_of_it "
        "test_batch.py::test_every_way_gives_the_same_bytes "
        "test_batch.py::test_what_is_finished_is_kept_and_what_has_changed_is_not "
        "test_batch.py::test_a_bad_row_is_a_line_with_an_error "
        "test_batch.py::test_a_shard_has_one_holder_and_leftovers_go",
        ('line.get("made") == job.made', "True"),
        ("row.name, pieces, voice.key", "row.name, voice.key"),
        ("voice.key, cast, seed, how)", "voice.key, cast, how)"),
        ("cast, seed, how)", "cast, seed)"),
        ("row.name, pieces, voice.key", "row.name, pieces"),
        ("return line if isinstance(file, str) and (self.path / file).is_file() else None", "return line"),
        (
            "self._booth.begin((job.row.line, one.begun), one.takes[one.begun])",
            "self._booth.begin((job.row.line, one.begun), one.takes[0])",
        ),
        ("{**self.sampling, **row.sampling}", "{**row.sampling, **self.sampling}"),
        ("remove_leftovers(folder, lambda", "(lambda *_: None)(folder, lambda"),
        ("if speaker.folder.is_closed(shard.count):", "if True:"),
    ),
    *mutants(
        "qwen3tts_np/batch/voices.py",
        "test_batch.py::test_voices_are_known_by_their_content "
        "test_batch.py::test_a_clip_that_many_rows_name_is_read_once "
        "test_batch.py::test_a_voice_of_several_files_is_known_by_all_of_them",
        ("key = hash_of(others, field, source.digest)", "key = hash_of(others, field)"),
        ("key = hash_of(others, field, source.digest)", "key = hash_of(source.digest)"),
        ("if _state(files) != state:", "if False:"),
        ("lru_cache(KEPT_DIGESTS)(_digest)", "_digest"),
        ("found.st_ino, found.st_size, found.st_mtime_ns", "found.st_ino, 0, 0"),
        ("more = map(str, beside(path)) if is_spk(path) else ()", "more = ()"),
    ),
    *mutants(
        "qwen3tts_np/batch/ray.py",
        "test_batch.py::test_on_a_cluster_every_row_has_the_bytes_of_one_process",
        ("surveyed(manifest, Shard(), Path(out), settings or Settings())", "pass"),
        ("Manifest(manifest.path.absolute())", "manifest"),
        ("Folder(Path(out).absolute())", "Folder(Path(out))"),
        ("            summary.add(row)", "            pass"),
        ('summary.add(Result(*json.loads(found["result"])))', "pass"),
        ("folder.write_results(manifest)", "pass"),
        ("folder.path, settings, batch_size", "folder.path, None, batch_size"),
        ("min(SHARES * workers, len(rows))", "1"),
    ),
    *mutants(
        "qwen3tts_np/talker/loss.py",
        "test_scoring.py::test_a_level_that_all_logits_of_a_row_have_says_nothing"
        " test_scoring.py::test_every_fault_of_an_alignment_is_named",
        ("[alignment : alignment + len(codes) + 1]", "[1 : len(codes) + 2]"),
        ("return hidden[state : len(hidden) - 1 + state]", "return hidden[: len(hidden) - 1]"),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels/softmax.py",
        "test_scoring.py::test_a_level_that_all_logits_of_a_row_have_says_nothing",
        ("shifted = x - x.max(axis=-1, keepdims=True)", "shifted = x - x.max()"),
    ),
    *mutants(
        "qwen3tts_np/evaluate/statistics.py",
        "test_evaluate.py::test_verdicts test_evaluate.py::test_a_run_against_itself_differs_in_nothing"
        " test_evaluate.py::test_an_error_rate_is_that_of_all_words_together",
        ("if low > -margin:", "if low > margin:"),
        (
            "low, high = sorted((measure.better * self.low, measure.better * self.high))",
            "low, high = self.low, self.high",
        ),
        ("off = (value_b - value_a) * weight", "off = value_b - value_a"),
        ("found = float((value * weight).sum() / weight.sum())", "found = float(value.mean())"),
    ),
    *mutants(
        "qwen3tts_np/evaluate/sphinx.py",
        "test_evaluate.py::test_pocketsphinx_hears_a_clip_as_if_it_were_the_first",
        ("self._decoder.reinit_feat()  #", "pass  #"),
    ),
    # ---- the compiled path ----
    *mutants(
        "qwen3tts_np/compiled",
        "test_model.py::test_n_new_tokens_are_n_minus_1_frames test_streaming.py"
        " test_parity.py::test_compiled_codes[custom_voice_many_frames-float32]"
        " test_parity.py::test_compiled_codes[clone_context-float32]"
        " test_parity.py::test_compiled_codes[clone_x_vector-float32]",
        ("min(limits.max_new_tokens, sys.maxsize) - 1", "min(limits.max_new_tokens, sys.maxsize)"),
        ("now[:, :, :used] =", "now[:, :, : used - 1] ="),
        ("self._next[item] = first + 1, end", "self._next[item] = first, end"),
        ("row += self.frame(position.frame)", "row += self.frame(position.frame[:1])"),
        ("len(request.x_vector)] += request.x_vector", "len(request.x_vector)] += 0"),
    ),
    *mutants(
        "qwen3tts_np/compiled",
        "test_model.py::test_a_batch_seeded_item_by_item_equals_single_runs",
        ("enumerate(self._generators) if other is generator)", "enumerate(self._generators) if other is not None)"),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels",
        "test_codec_compiled.py",
        ("_copy(x, last + row, kept, row, end - first)", "_copy(x, row, kept, row, end - first)"),
        ("sample = np.float32(-1)", "pass"),
    ),
    *mutants(
        "kernels/qwen3tts_np_kernels/threads_jit.py",
        "test_team.py::test_every_unit_is_taken_once_in_whatever_order_members_ask",
        ("+ _ASKED] += PARTS + me.count", "+ _ASKED] += PARTS"),
        ("left >> 1 if number < PARTS - 1 else 0", "left >> 1"),
        ("if number >= PARTS:\n            behind", "if True:\n            behind"),
    ),
    *mutants(
        "qwen3tts_np/compiled",
        "test_codec_compiled.py",
        ("known.program.prepare(contents, [streams[i]", "known.program.prepare(contents, [streams[0]"),
        ("contents = [[x], *(of(blocks[0]) for of in known.known)]", "contents = [[x], *known.program._given[1:]]"),
        ("stream.position += rows", "pass"),
        ("np.arange(part.position, part.position + part.rows)", "np.arange(part.rows)"),
        ("        y += x", "        pass"),
        ("residual -= codebook.entries[codes[-1]]", "pass"),
        ('-len(y) % DOWNSAMPLE_STRIDE), (0, 0)), mode="edge")', "-len(y) % DOWNSAMPLE_STRIDE), (0, 0)))"),
        ("chunk + chunks[i] if i else chunk", "chunk + chunks[i]"),
    ),
    *mutants(
        "qwen3tts_np/compiled/talker",
        "test_kernels_decode.py::test_top_p_exactly_at_its_boundary"
        " test_kernels_decode.py::test_all_that_tie_with_the_last_of_the_best_may_win"
        " test_kernels_decode.py::test_in_a_dead_heat_the_lower_id_wins"
        " test_kernels_decode.py::test_choices_and_random_numbers_are_those_of_the_definition",
        ("if np.float32(mass) > drop_mass:", "if np.float32(mass) >= drop_mass:"),
        ("if scores[i] >= bar and", "if scores[i] > bar and"),
        ("y[eos] = end if may_end else _OUT", "y[eos] = end"),
        ("if speed > lead:", "if speed >= lead:"),
    ),
    *mutants(
        "qwen3tts_np/compiled",
        "test_openings.py",
        ("if part.start < end <= part.stop and", "if part.start < end and"),
        ("(vector.dtype.str, vector.tobytes())", '("", vector.tobytes())'),
        ("vector = request.x_vector if any(position.x_vector for position in positions) else None", "vector = None"),
        ("len(prompt.prefill) - 1, MOST_POSITIONS", "len(prompt.prefill), MOST_POSITIONS"),
        ("kept.pop(opening, None)", "pass"),
        ("del kept[next(iter(kept))]", "kept.popitem()"),
    ),
    # ---- training ----
    *mutants(
        "qwen3tts_np/training",
        "test_training_goldens.py::test_gradients",
        ("return np.concatenate(rows) + alignment.state", "return np.concatenate(rows)"),
        ("dh2 += w.linear_backward(dgate", "dh2 = w.linear_backward(dgate"),
        ("dx = (w.linear_backward(dx, x, SMALL) if projects else dx)", "dx = (w.linear_backward(dx, x, SMALL))"),
        ("w.learn_rows(CODE_0, batch.codec, dx[batch.codec_at])", "pass"),
        ("dhidden[at] += dstates", "dhidden[at] = dstates"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training.py",
        ("dx += dl @ a", "dx = dl @ a"),
        ('return array.ndim == 2 and "embedding" not in name', "return array.ndim == 2"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_settings.py",
        ("wrong = type(value) is not kind and not", "wrong = type(value) is kind and not"),
        ("values[setting] != known:", "False:"),
        ("elif name in SPECIAL:", "elif False:"),
        ("if self.freeze_original_layers else", "if not self.freeze_original_layers else"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_checkpoints.py",
        ("zero = identity and spec.key.endswith(INTO_RESIDUAL)", "zero = False"),
        ("for i in range(original - self.replace_last, original", "for i in range(original"),
        ("found[lower] = next(free, -1) if row is None else row", "found[lower] = next(free, -1)"),
        ("and i not in used]", "]"),
        ("lower = name.strip().lower()", "lower = name.strip()"),
        ("i >= layers - count]", "i > layers - count]"),
    ),
    *mutants(
        "qwen3tts_np/checkpoint/adapter.py",
        "test_training_checkpoints.py",
        ("return self.alpha / self.rank", "return self.alpha"),
        ("+ np.float32(scale) * (b @ a)", "+ b @ a"),
        ("data[i] = as_stored(stored.name, row", "data[i - 1] = as_stored(stored.name, row"),
        ('"tts_model_type": "custom_voice", ', ""),
        ('raise RequestError(f"{shown_name(checkpoint.path)} is quantised', 'print(f"{shown_name(checkpoint.path)}'),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_run.py::test_an_epoch_has_every_row_once"
        " test_training_run.py::test_the_warm_up_is_at_most_a_tenth",
        ("[self.settings.seed, ORDER, epoch]", "[self.settings.seed, ORDER]"),
        ("place * together : (place + 1) * together", "place : place + together"),
        ("self.settings.warmup_steps, self.steps // WARM_UP", "self.settings.warmup_steps, self.steps"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_run.py::test_a_killed_run_writes_the_same_bytes",
        ("self.optimiser.steps = step", "pass"),
        ('(self.optimiser.first if part == "first" else', "(self.optimiser.first if False else"),
        ('if line["step"] <= last_step]', "]"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_run.py::test_a_run_leaves_what_it_says"
        " test_training_run.py::test_batches_are_weighted_by_their_labels"
        " test_training_run.py::test_a_gradient_that_is_not_finite_stops_the_run"
        " test_training_run.py::test_every_mode_learns_what_it_is_to_learn"
        " test_training_run.py::test_the_best_checkpoint_is_that_of_the_least_loss",
        ("total = None if official else Counts.total(of)", "total = None"),
        ("    remove_folder(self.checkpoint(step))", "    pass"),
        ("if not math.isfinite(norm):", "if False:"),
        ("if name != TEXT_EMBEDDING or s.train_text_embedding", ""),
        ("state.best_loss is None or loss < state.best_loss", "state.best_loss is None or loss > state.best_loss"),
        ("return not self.settings.last", "return False"),
    ),
    # ---- graphs for other runtimes, and the porter's kit ----
    *mutants(
        "qwen3tts_np/export/pieces",
        "test_export_codec.py",
        ("t.slice(whole, 2, -count, None", "t.slice(whole, 2, 0, count"),
        ("t.slice(y, 2, count * stride", "t.slice(y, 2, 0"),
        ("now = t.minimum(t.add(seen, count,", "now = t.minimum(t.add(seen, 1.0,"),
        ("t.concat([t.state(name, shape), new], 0", "t.concat([new, t.state(name, shape)], 0"),
        ('stride - 1, f"{name}/padded", mode="edge"', 'stride - 1, f"{name}/padded", mode="constant"'),
        ("carried = part if i == 0 else", "carried ="),
    ),
    *mutants(
        "qwen3tts_np/export",
        "test_export_onnx.py",
        ('BITS.get(stored_format(key, model_format) or "")', 'BITS.get(stored_format(key, model_format) or "int8")'),
        ('[self._in_8_bits(x, inputs, f"{name}/input"), chosen]', "[x, chosen]"),
        ('"cache/not_before"), count - 1', '"cache/not_before"), count - 2'),
        (
            't.gather(hidden, which, 0, "talker.codec_head.input")',
            't.slice(hidden, 0, -1, None, "talker.codec_head.input")',
        ),
    ),
    *mutants(
        "qwen3tts_np/export/coreml_target.py",
        "test_export_coreml.py",
        ("levels + 32 if bits == 6", "levels + 31 if bits == 6"),
        ("found.op.weight_id = name", "pass"),
        ("np.full(condition.shape, max(v, HIDDEN), self._np)", "self._np(max(v, HIDDEN))"),
        ('first = self.slice(positions, 0, 0, 1, f"{name}/first")', "first = np.zeros(1, np.int32)"),
    ),
    *mutants(
        "qwen3tts_np/parity",
        "test_diagnosis.py::test_a_wrong_mel_is_named_or_unknown test_fixtures.py",
        ('OF_MEL if context.leaf == "mel" else CAUSES', "CAUSES"),
        ('np.arange(positions) <= inputs["position"][:, None]', 'np.arange(positions) < inputs["position"][:, None]'),
        ("text[min(step.frame, len(text) - 1)]", "text[0]"),
    ),
    *mutants(
        "qwen3tts_np/training",
        "test_training_prepare.py",
        ("< share * 2.0**64", "< 0.5 * share * 2.0**64"),
        ("text).casefold()", "text)"),
        ("chosen &= (count > 0) & (code == frames[:, 0])", "chosen &= count > 0"),
        ("pool.frames[(first + (place * count)", "pool.frames[(first + (0 * count)"),
        ("(first := seen.setdefault(codes, where)) != where", "(first := seen.setdefault(codes, where)) is None"),
        ("(self.sum / self.embeddings)", "self.sum"),
        ('rule = "short" if seconds < SHORTEST', 'rule = "short" if seconds > SHORTEST'),
        ("if measured.clipped > CLIPPED:", "if False:"),
        ("measured.noise < NOISY:", "measured.noise > NOISY:"),
    ),
    *mutants(
        "qwen3tts_np/files/journal.py",
        "test_training_prepare.py",
        ("file.truncate(self._end)", "pass"),
        ("if not MARK.startswith(found):", "if False:"),
        ("if not _locked(file):", "if False:"),
    ),
]


# ---- planting one, in the process that runs its tests ----


class Planter(PathFinder):
    """Finds modules as Python does, but for the one file of the mutant gives its text changed."""

    mutant: Mutant
    target: Path

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, None)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == cls.target:
            spec.loader = Planted(fullname, spec.origin)
        return spec


class Planted(SourceFileLoader):
    """Compiles the changed text, without the bytecode on disk."""

    def get_code(self, fullname: str) -> CodeType:
        text = Planter.target.read_text(encoding="utf-8")
        changed = text.replace(Planter.mutant.line, Planter.mutant.instead)
        return compile(changed, self.path, "exec", dont_inherit=True)


def status_with(mutant: Mutant) -> int:
    """The status of its tests with the mutant in place."""
    Planter.mutant, Planter.target = mutant, mutant.file().resolve()
    sys.meta_path.insert(0, Planter)
    return run_tests(mutant.tests)


def run_tests(tests: Sequence[str]) -> int:
    """Of these files and tests."""
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]  # as pytest does, but before the next line
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "few"]
    return int(pytest.main([*options, *(str(TESTS / test) for test in tests)]))


# ---- all of them, each in a process of its own ----


@dataclass(frozen=True)
class Outcome:
    status: int | None  # of pytest; None: it took too long
    seconds: float
    output: str


def in_a_process(*arguments: str, compiles: bool = False, patience: float | None = PATIENCE) -> Outcome:
    """This file with some arguments. ``compiles``: compiled code on disk would hide the mutant, so it has its own."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache} if compiles else dict(os.environ)
        command, start = [sys.executable, __file__, *arguments], time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=patience, check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome(None, time.perf_counter() - start, "")
        return Outcome(done.returncode, time.perf_counter() - start, done.stdout + done.stderr)


def outcome_of(mutant: Mutant) -> Outcome:
    compiles = re.search("^@(kernel|inner|inlined|team_kernel)", mutant.file().read_text("utf-8"), re.M) is not None
    return in_a_process("--plant", str(MUTANTS.index(mutant)), compiles=compiles)


def survivors(chosen: Sequence[Mutant], jobs: int) -> list[Mutant]:
    """Those whose tests pass; RuntimeError if tests fail without a mutant, or cannot run with one."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    alive = []
    with ThreadPoolExecutor(jobs) as pool:
        unchanged = pool.submit(in_a_process, "--tests", *tests, patience=None)
        for mutant, outcome in zip(chosen, pool.map(outcome_of, chosen), strict=True):
            if outcome.status not in (0, FAILED, None):
                raise RuntimeError(f"{mutant.name}\nthe tests cannot run with it:\n{outcome.output[-4000:]}")
            if outcome.status == 0:
                alive.append(mutant)
            verdict = {0: "SURVIVES", None: "endless"}.get(outcome.status, "killed")
            print(f"{verdict:8} {outcome.seconds:5.1f} s  {mutant.name}", flush=True)
    if unchanged.result().status != 0:
        raise RuntimeError(f"the tests fail without a mutant:\n{unchanged.result().output[-4000:]}")
    return alive


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the mutants and their tests")
    parser.add_argument("--only", metavar="WORD", default="", help="those whose place, line or tests contain WORD")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (default: all cores)"
    )
    parser.add_argument("--plant", type=int, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--tests", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plant is not None:
        return status_with(MUTANTS[options.plant])
    if options.tests:
        return run_tests(options.tests)
    chosen = [m for m in MUTANTS if options.only in f"{m.name} {' '.join(m.tests)}"]
    for mutant in chosen:
        mutant.file()
    if options.list:
        print(*(f"{mutant.name}\n    {' '.join(mutant.tests)}" for mutant in chosen), sep="\n")
        return 0
    start = time.perf_counter()
    alive = survivors(chosen, options.jobs)
    print(f"{len(alive)} of {len(chosen)} mutants survive ({time.perf_counter() - start:.0f} s)")
    print(*(f"  {mutant.name}" for mutant in alive), sep="\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
