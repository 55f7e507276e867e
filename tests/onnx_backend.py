#!/usr/bin/env python3
"""The ONNX project's own backend node tests through `llamac compile` and `llamac infer`.

    python3 tests/onnx_backend.py [--llamac target/release/llamac] [--filter REGEX] [--list]

Makes a virtual environment with onnx (PyPI) under target/ the first time, exports every node case of it to files, compiles and
runs them in one process, compares with the tolerance that each case states, and prints per operator: passed, wrong, not supported.
Operators of Llama graphs come first and are counted by themselves. Exit code 1 if anything is wrong, or if a case of the
operators in MUST with tensors of numbers did not pass.
"""
import argparse, collections, json, pathlib, re, shutil, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent.parent
VENV = HERE / "target" / "onnx-backend-venv"
CASES = HERE / "target" / "onnx-backend-cases"
PACKAGES = ["onnx==1.23.2", "numpy", "ml_dtypes"]

# Operators that exports of Llama models use, also inside the functions that onnx expands.
LLAMA = """Abs Add And ArgMax ArgMin Attention Cast CastLike Ceil Clip Concat Constant ConstantOfShape Cos CumSum DequantizeLinear Div Dropout
DynamicQuantizeLinear Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual Identity IsInf IsNaN
LayerNormalization Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow QLinearMatMul
QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape RotaryEmbedding Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice Softmax Softplus
Split Sqrt Squeeze Sub Sum SwiGLU Swish Tanh TensorScatter Tile TopK Transpose Trilu Unsqueeze Where Xor""".split()
# Every single-node case of these with tensors of floats of 16 to 64 bits, integers of 8 to 64 and bool must pass.
MUST = """Attention RotaryEmbedding RMSNormalization MatMul Softmax Gather Where Concat Slice Expand Reshape Transpose Cast Add Mul Div Pow Sqrt
ReduceMean Sigmoid TopK DequantizeLinear MatMulInteger""".split()


def bootstrap():
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        sys.exit(subprocess.run([str(python), __file__, *sys.argv[1:]]).returncode)


def write_safetensors(path, tensors):
    header, blobs, at = {}, [], 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return {n: (h["dtype"], h["shape"], data[8 + size :][slice(*h["data_offsets"])]) for n, h in header.items() if n != "__metadata__"}


def kinds():
    """numpy type -> (safetensors type, how bytes are made)."""
    import ml_dtypes, numpy as np
    plain = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
             "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
             "float8_e4m3fnuz": "U8", "float8_e5m2fnuz": "U8", "float8_e8m0fnu": "U8", "float4_e2m1fn": "U8", "int4": "I8", "uint4": "U8", "int2": "I8", "uint2": "U8"}
    return plain


def array(x):
    import numpy as np, onnx
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x)


def to_file(x):
    import numpy as np
    x = array(x)
    name = x.dtype.name
    kind = kinds().get(name)
    if kind is None:
        return None
    if name in ("int4", "int2"):
        x = x.astype(np.int8)
    if name in ("uint4", "uint2"):
        x = x.astype(np.uint8)
    shape = list(x.shape)
    return kind, shape, np.ascontiguousarray(x).tobytes()


def from_file(kind, shape, data, like):
    import numpy as np
    name = like.dtype.name
    if kinds().get(name) != kind:
        return None
    if name in ("int4", "int2", "uint4", "uint2"):
        return np.frombuffer(data, np.int8 if name[0] == "i" else np.uint8).reshape(shape).astype(like.dtype)
    return np.frombuffer(data, like.dtype).reshape(shape)


def same(found, wanted, rtol, atol):
    import numpy as np
    if found is None or list(found.shape) != list(wanted.shape):
        return False
    if wanted.dtype.kind in "biu" or wanted.dtype.name in ("int4", "uint4", "int2", "uint2", "bool"):
        return bool(np.array_equal(found.astype(np.int64) if wanted.dtype.name != "uint64" else found, wanted.astype(np.int64) if wanted.dtype.name != "uint64" else wanted))
    if wanted.dtype.itemsize < 8:
        found, wanted = found.astype(np.float32), wanted.astype(np.float32)
    return bool(np.allclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True))


def export(pattern):
    """Writes cases; returns (name, operators, single, wanted outputs, tolerances, why it could not be exported)."""
    import warnings
    warnings.filterwarnings("ignore")
    import numpy as np, onnx
    from onnx.backend.test.case.node import collect_testcases
    shutil.rmtree(CASES, ignore_errors=True)
    out = []
    for case in collect_testcases(None):
        if pattern and not re.search(pattern, case.name):
            continue
        folder, graph = CASES / case.name, case.model.graph
        folder.mkdir(parents=True)
        onnx.save(case.model, folder / "model.onnx")
        inputs, outputs = case.data_sets[0]
        why, given = None, {}
        for info, value in zip(graph.input, inputs):
            item = None if isinstance(value, (list, tuple, dict)) or value is None else to_file(value)
            if item is None:
                why = "an input is no tensor of numbers"
                break
            given[info.name] = item
        write_safetensors(folder / "in.safetensors", given)
        wanted = [(o.name, v if isinstance(v, (list, tuple, dict)) or v is None else array(v)) for o, v in zip(graph.output, outputs)]
        operators = collections.Counter(n.op_type for n in graph.node)
        out.append((case.name, operators, len(graph.node) == 1, wanted, case.rtol, case.atol, why))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamac", default=str(HERE / "target" / "release" / "llamac"))
    parser.add_argument("--filter", help="only cases whose name matches")
    parser.add_argument("--list", action="store_true", help="also print every case that did not pass, and why")
    args = parser.parse_args()
    cases = export(args.filter)
    subprocess.run([args.llamac, "infer", "--batch", str(CASES)], check=True, stderr=subprocess.DEVNULL)
    count = collections.defaultdict(collections.Counter)
    total, llama, must = collections.Counter(), collections.Counter(), []
    for name, operators, single, wanted, rtol, atol, why in cases:
        folder = CASES / name
        detail = why or ""
        if (folder / "out.safetensors").exists() and why is None:
            found = read_safetensors(folder / "out.safetensors")
            wrong = []
            for output, value in wanted:
                if not hasattr(value, "dtype") or output not in found or not same(from_file(*found[output], value), value, rtol, atol):
                    wrong.append(output)
            verdict, detail = ("wrong", ", ".join(wrong)) if wrong else ("passed", "")
        else:
            verdict = "not supported"
            error = folder / "error.txt"
            detail = detail or (error.read_text() if error.exists() else "nothing came out")
            if "error[internal]" in detail:
                verdict = "wrong"
        row = next(iter(operators)) if single else "(functions, expanded)"
        count[row][verdict] += 1
        total[verdict] += 1
        if all(op in LLAMA for op in operators):
            llama[verdict] += 1
        numbers = "an element type is not compiled" not in detail and why is None
        if single and row in MUST and verdict != "passed" and numbers:
            must.append(name)
        if args.list and verdict != "passed":
            print(f"{verdict}: {name}: {detail.strip()}")
    print(f"{'operator':28}{'passed':>8}{'wrong':>8}{'not supported':>15}")
    for row in sorted(count, key=lambda r: (r not in LLAMA, r)):
        c = count[row]
        print(f"{row:28}{c['passed']:8}{c['wrong']:8}{c['not supported']:15}")
    for label, c in (("operators of Llama graphs", llama), ("all", total)):
        print(f"{label:28}{c['passed']:8}{c['wrong']:8}{c['not supported']:15}   of {sum(c.values())}")
    for name in must:
        print(f"must pass and did not: {name}")
    return 1 if total["wrong"] or must else 0


if __name__ == "__main__":
    bootstrap()
    sys.exit(main())
