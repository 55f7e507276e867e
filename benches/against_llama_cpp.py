#!/usr/bin/env python3
"""Measures llamac against llama.cpp in turn, in one run, on the same weights, bits and threads; prints a markdown table.

Needs: pip install llama-cpp-python gguf numpy (the first builds llama.cpp for this CPU), a built `llamac`, and a Hugging Face directory of a
Llama 3 model in bf16 safetensors (random weights do: `random_checkpoint`). See README.md beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# What each of ours is measured against: llamac's --quant, the type of llama.cpp's matrices.
PAIRS = {"int4": "Q4_0", "int8": "Q8_0"}


def tensors(directory):
    """Name, shape and bf16 bits of every tensor of a directory."""
    for path in sorted(Path(directory).glob("*.safetensors")):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] != "BF16":
                sys.exit(f"{path}: tensor `{name}` is {entry['dtype']}, this script reads BF16 only")
            first, end = entry["data_offsets"]
            yield name, entry["shape"], data[first:end].view(np.uint16).reshape(entry["shape"])


def permuted(rows, heads):
    """Rows of q or k in the order of llama.cpp's rope: pairs stand together."""
    size = rows.shape[0] // heads
    return rows.reshape(heads, 2, size // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def convert(directory, out, kind):
    """Writes a GGUF file without a vocabulary."""
    import gguf

    config = json.loads((Path(directory) / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type({"Q4_0": 2, "Q8_0": 7}[kind])
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, shape, bits in tensors(directory):
        part = name.removeprefix("model.").removesuffix(".weight")
        ours = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}.get(part)
        if part.startswith("layers."):
            _, layer, rest = part.split(".", 2)
            ours = f"blk.{layer}.{names[rest]}"
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                bits = permuted(bits, heads if "q_proj" in rest else kv_heads)
        values = (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{ours}.weight", values)
            continue
        # The embedding is the head too and has 8 bits in ours, whatever the layers have.
        of = gguf.GGMLQuantizationType["Q8_0" if ours in ("token_embd", "output") else kind]
        writer.add_tensor(f"{ours}.weight", gguf.quants.quantize(values, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A model in llama.cpp, through its C interface."""

    def __init__(self, path, threads, context, batch):
        import llama_cpp as c

        self.c, self.batch = c, batch
        c.llama_backend_init()
        self.log = c.llama_log_callback(lambda *_: None)
        c.llama_log_set(self.log, None)
        self.model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
        params = c.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = context * batch, 512, 512, batch
        params.n_threads = params.n_threads_batch = threads
        self.context = c.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"llama.cpp does not take {path}")
        self.room = c.llama_batch_init(512, 0, batch)
        self.memory = c.llama_get_memory(self.context)

    def decode(self, rows):
        """Computes rows of (token, position, sequence, logits wanted)."""
        room = self.room
        room.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            room.token[i], room.pos[i], room.n_seq_id[i], room.logits[i] = token, position, 1, wanted
            room.seq_id[i][0] = sequence
        if self.c.llama_decode(self.context, room) != 0:
            sys.exit("llama.cpp failed to decode")
        self.c.llama_synchronize(self.context)

    def clear(self):
        self.c.llama_memory_clear(self.memory, True)

    def fill(self, depth):
        self.clear()
        for first in range(0, depth, 512):
            self.decode([(100 + i % 1000, i, 0, False) for i in range(first, min(first + 512, depth))])

    def prefill(self, tokens):
        self.clear()
        start = time.perf_counter()
        for first in range(0, tokens, 512):
            end = min(first + 512, tokens)
            self.decode([(100 + i * 7 % 1000, i, 0, i + 1 == tokens) for i in range(first, end)])
        return tokens / (time.perf_counter() - start)

    def steps(self, depth, batch, count):
        """Tokens per second of `count` steps of `batch` sequences at a depth, which must be filled."""
        start = time.perf_counter()
        for step in range(count):
            self.decode([(100 + step * 31 % 1000, depth + step, s, True) for s in range(batch)])
        rate = batch * count / (time.perf_counter() - start)
        for s in range(batch):
            self.c.llama_memory_seq_rm(self.memory, s, depth, -1)
        return rate


def ours(llamac, artifact, threads, case):
    """Tokens per second and share of the roof of one case."""
    kind, *figures = case
    flags = ["--prefill", str(figures[0]), "--decode", "0"] if kind == "prefill" else [
        "--prefill", "0", "--depth", str(figures[0]), "--batch", str(figures[1]), "--decode", str(figures[2])]
    run = [llamac, "bench", artifact, "--json", "--reps", "1", "--threads", str(threads), *flags]
    cases = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)["cases"]
    return cases[0]["tokens_per_second"]["median"], cases[0]["read_share"] or cases[0]["peak_share"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Hugging Face directory")
    parser.add_argument("--work", required=True, help="folder for artifacts and GGUF files, kept for the next run")
    parser.add_argument("--llamac", default="target/release/llamac")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--quant", default="int4,int8", help="of: " + ", ".join(PAIRS))
    parser.add_argument("--prefill", default="512")
    parser.add_argument("--depth", default="0,4096", help="at batch 1")
    parser.add_argument("--batch", default="4,8", help="at depth 0")
    parser.add_argument("--steps", type=int, default=16, help="tokens of a decode measurement")
    parser.add_argument("--prepare", action="store_true", help="only compile and convert")
    args = parser.parse_args()
    numbers = lambda text: [int(n) for n in text.split(",") if n]
    depths, batches = numbers(args.depth), numbers(args.batch)
    cases = [("prefill", n) for n in numbers(args.prefill)]
    cases += [("decode", d, 1, args.steps) for d in depths] + [("decode", 0, b, args.steps) for b in batches]
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    if not args.prepare:
        print("| weights | case | llamac tok/s (from-to) | % of roof | llama.cpp tok/s (from-to) | ratio |\n|---|---|---|---|---|---|")
    for quant in args.quant.split(","):
        artifact, gguf_file = work / f"{quant}.llx", work / f"{PAIRS[quant]}.gguf"
        if not artifact.exists():
            flags = ["--quant", quant, "--max-batch", str(max([1, *batches])), "--no-check", "-q"]
            subprocess.run([args.llamac, "compile", args.model, "-o", artifact, *flags], check=True)
        if not gguf_file.exists():
            convert(args.model, gguf_file, PAIRS[quant])
        if args.prepare:
            continue
        deepest = max([*numbers(args.prefill), *depths]) + args.steps + 1
        theirs = LlamaCpp(gguf_file, args.threads, deepest, max([1, *batches]))
        for case in cases:
            mine, other, shares = [], [], []
            kind, n, *rest = case
            if kind == "decode":
                theirs.fill(n)
            for _ in range(args.reps):
                rate, share = ours(args.llamac, artifact, args.threads, case)
                mine.append(rate)
                shares.append(share)
                other.append(theirs.prefill(n) if kind == "prefill" else theirs.steps(n, *rest))
            name = f"prefill {n}" if kind == "prefill" else f"decode at {n}, batch {rest[0]}"
            cell = lambda x: f"{statistics.median(x):.1f} ({min(x):.1f}-{max(x):.1f})"
            ratio = statistics.median(a / b for a, b in zip(mine, other))
            share = f"{100 * statistics.median(shares):.0f}"
            print(f"| {quant} / {PAIRS[quant]} | {name} | {cell(mine)} | {share} | {cell(other)} | {ratio:.2f} |", flush=True)
        del theirs


if __name__ == "__main__":
    main()
