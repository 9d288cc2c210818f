"""The workloads of docs/PERFORMANCE.md in tinygrad on WebGPU (Dawn, Vulkan), for a comparison on one machine.

    python3 -m venv VENV && VENV/bin/pip install tinygrad dawn-python numpy
    VENV/bin/python benches/peers/tinygrad.py WORKLOAD

Prints one JSON object; tensors of the host in and out. RUNS in the environment is the number of forwards (5); BEAM=2 lets tinygrad
search its kernels.
"""

import importlib.util, json, math, os, resource, sys, time

sys.path.pop(0)  # this file has the package's name: its own folder must not come first
os.environ.setdefault("DEV", "WEBGPU")
dawn = os.path.join(os.path.dirname(importlib.util.find_spec("pydawn").origin), "lib", "libwebgpu_dawn_x86_64.so")
os.environ.setdefault("WEBGPU_PATH", dawn)
import numpy as np
from tinygrad import Device, Tensor, TinyJit

# batch, side, patch, channels, channels out, hidden, depth, heads, classes
DITS = {
    "w1": (8, 28, 2, 1, 1, 128, 6, 4, 10),
    "w2": (2, 32, 2, 4, 8, 384, 12, 6, 1000),
    "w3": (1, 64, 2, 4, 8, 1152, 2, 16, 1000),
}
ATTENTIONS = {"w4a": (1, 16, 1024, 64), "w4b": (1, 16, 4096, 64)}
random = np.random.default_rng(1)


def draw(*shape):
    return random.uniform(-1, 1, shape).astype(np.float32)


def linear(inputs, outputs):
    return Tensor(draw(outputs, inputs) / math.sqrt(inputs)).realize(), Tensor(draw(outputs) * 0.05).realize()


def apply(layer, x):
    return x.linear(layer[0].transpose(), layer[1])


class Dit:
    def __init__(self, batch, side, patch, channels, out_channels, hidden, depth, heads, classes):
        self.sizes = batch, side // patch, patch, channels, out_channels, hidden, heads
        area, d = patch * patch, hidden
        self.patches = linear(area * channels, d)
        self.positions = Tensor(draw(1, (side // patch) ** 2, d) * 0.05).realize()
        self.frequencies = Tensor(np.exp(-math.log(10000) * np.arange(128, dtype=np.float32) / 128)).realize()
        self.time = linear(256, d), linear(d, d)
        self.classes = Tensor(draw(classes + 1, d) * 0.05).realize()
        self.blocks = [[linear(*s) for s in ((d, 6 * d), (d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))] for _ in range(depth)]
        self.modulation, self.last = linear(d, 2 * d), linear(d, area * out_channels)

    def __call__(self, x, t, y):
        batch, n, p, channels, out_channels, d, heads = self.sizes
        x = x.reshape(batch, channels, n, p, n, p).permute(0, 2, 4, 1, 3, 5).reshape(batch, n * n, channels * p * p)
        x = apply(self.patches, x) + self.positions
        angles = t.reshape(batch, 1) * self.frequencies
        t = apply(self.time[1], apply(self.time[0], angles.cos().cat(angles.sin(), dim=1)).silu())
        condition = (t + self.classes[y]).silu()
        modulated = lambda x, shift, scale: x.layernorm(eps=1e-6) * (scale + 1) + shift
        for modulation, qkv, projection, first, second in self.blocks:
            shift1, scale1, gate1, shift2, scale2, gate2 = apply(modulation, condition).reshape(batch, 1, 6 * d).chunk(6, dim=2)
            q, k, v = apply(qkv, modulated(x, shift1, scale1)).reshape(batch, n * n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            heads_out = q.scaled_dot_product_attention(k, v).transpose(1, 2).reshape(batch, n * n, d)
            x = x + gate1 * apply(projection, heads_out)
            x = x + gate2 * apply(second, apply(first, modulated(x, shift2, scale2)).gelu())
        shift, scale = apply(self.modulation, condition).reshape(batch, 1, 2 * d).chunk(2, dim=2)
        x = apply(self.last, modulated(x, shift, scale)).reshape(batch, n, n, p, p, out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, out_channels, n * p, n * p)


def main():
    name = sys.argv[1]
    if name in ATTENTIONS:
        batch, heads, tokens, d = ATTENTIONS[name]
        inputs = [draw(*ATTENTIONS[name]) for _ in range(3)]
        network, shape = (lambda q, k, v: q.scaled_dot_product_attention(k, v)), ATTENTIONS[name]
        gflop = 4 * batch * heads * tokens**2 * d / 1e9
    else:
        batch, side, patch, channels, out_channels, d, depth, heads, classes = DITS[name]
        inputs = [draw(batch, channels, side, side), np.arange(batch, dtype=np.float32) * 100 + 7, np.arange(batch, dtype=np.int32) % 8]
        network, shape = Dit(*DITS[name]), (batch, out_channels, side, side)
        tokens, area = (side // patch) ** 2, patch**2
        block = tokens * 12 * d * d + 6 * d * d + 2 * tokens**2 * d
        gflop = 2 * batch * (depth * block + tokens * area * (channels + out_channels) * d + 256 * d + 3 * d * d) / 1e9

    jit = TinyJit(lambda *tensors: network(*tensors).realize())

    def forward():
        started = time.perf_counter()
        output = jit(*[Tensor(i).realize() for i in inputs]).numpy()
        return (time.perf_counter() - started) * 1e3, output

    def cpu():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return (usage.ru_utime + usage.ru_stime) * 1e3

    began = time.perf_counter()
    for _ in range(4):  # the first two make the program, the third and fourth run it
        ms, output = forward()
        print(f"{name}: {ms:.1f} ms", file=sys.stderr)
    assert output.shape == shape and np.isfinite(output).all()
    if name in ATTENTIONS:
        q, k, v = (i[0, 3].astype(np.float64) for i in inputs)
        weights = np.exp(q[:4] @ k.T / math.sqrt(d))
        want = weights @ v / weights.sum(axis=1, keepdims=True)
        off = np.abs(output[0, 3, :4] - want).max() / np.abs(want).max()
        assert off < 1e-4, off
    warm_up, runs = time.perf_counter() - began, int(os.environ.get("RUNS", "5"))
    times, least_cpu = [], math.inf
    for _ in range(runs):
        before = cpu()
        times.append(forward()[0])
        least_cpu = min(least_cpu, cpu() - before)
    times.sort()
    report = {"workload": name, "median_ms": times[runs // 2], "best_ms": times[0], "cpu_ms": least_cpu, "gflop": gflop,
              "device": Device.DEFAULT, "driver": "Dawn", "peer": "tinygrad",
              "beam": os.environ.get("BEAM", "0"), "warm_up_s": warm_up}
    print(json.dumps(report))


main()
