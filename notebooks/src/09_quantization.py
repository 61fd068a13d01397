# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 09 · Quantization
#
# A weight is stored in 32 bits. The article says that eight are enough: the model becomes 75%
# smaller, and adjusting the dynamic range keeps its accuracy (section 3.1). We start with one
# number, go on to a whole model, and end with nine ways of running it that people really use, on
# two kinds of CPU.
#
# | | |
# |---|---|
# | **Claims** | `int8-size`, `int8-accuracy` |
# | **Time** | 40 minutes; the cells run in about a minute |
# | **Afterwards you can** | put a tensor on a grid and say what error and size result, tell dynamic from static quantization, find the outliers that spoil a scale, and find out on your own CPU where an INT8 model's time goes |

# %% [markdown] tags=["zh"]
# # 09 · 量化
#
# 一个权重用 32 比特存储。文章说 8 比特就够：模型缩小 75%，调整动态范围即可保持精度（原文第 3.1 节）。
# 我们从一个数开始，讲到整个模型，最后在两类 CPU 上比较实际使用的九种运行方式。
#
# | | |
# |---|---|
# | **论断** | `int8-size`、`int8-accuracy` |
# | **用时** | 40 分钟；全部单元格运行约一分钟 |
# | **学完之后** | 能把张量量化到网格上，并说出误差和大小；能区分动态量化与静态量化；能找到撑大缩放因子的离群值；能在自己的 CPU 上查出 INT8 模型的时间花在哪里 |

# %% tags=["parameters"]
language = "en"
bits = 8  # width of the weights on disk, 2 to 16
n_docstrings = 40  # judged here, 2 to 300
n_calibration = 30  # shown to OpenVINO beforehand, 1 to 150

# %%
from copy import deepcopy
from itertools import product

import torch
import torch.ao.quantization as ao
from torch import nn

from efflab import bench, cost, estimate, inference, lab, points
from efflab.compression import affine, engines, int8
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.devices import GIB
from efflab.experiments import int8_engines as experiment
from efflab.experiments import int8_ranges_2, record
from efflab.lab import board, check, explore, predict, show, show_source, sweeps, table
from efflab_rooms import texts
from efflab_rooms.quantization import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("09_quantization", exercises.EXERCISES, texts("quantization"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# MiniLM-L6 is a real sentence encoder with 23 million parameters (91 MB). torch's tools quantize
# its linear layers and nothing else. Predict the time as well: OpenVINO in INT8 against plain torch
# in fp32, for 16 texts of 128 tokens, on two CPUs of the same make. VNNI is a set of instructions
# on newer x86 CPUs: a single instruction multiplies 8-bit numbers and adds up the products. One of
# the two CPUs has VNNI, and is newer in many other ways. The article reports 60% less latency for
# ERNIE in INT8, that is, 0.4 times the original.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# MiniLM-L6 是一个真实的句子编码器，2300 万参数，91 MB。torch 的工具只量化线性层，其余不动。
# 再估一下时间：处理 16 条各 128 个 token 的文本，在同一品牌的两块 CPU 上，OpenVINO INT8 的用时分别是普通 torch fp32 的多少倍。
# VNNI 是较新的 x86 CPU 上的一组指令，8 比特数的相乘与累加由一条指令完成；两块 CPU 中一块有它，
# 其他方面也新得多。文章报告 ERNIE 用 INT8 后延迟降低 60%，即降到原来的 0.4 倍。

# %%
p_size = predict(
    "By what percentage does MiniLM shrink with only its linear layers in 8 bits?", "%"
)

# %%
p_without = predict(
    "How many times as long as torch fp32 does OpenVINO INT8 take on the CPU without VNNI?", "x"
)

# %%
p_with = predict("And on the CPU with VNNI?", "x")

# %% [markdown] tags=["en"]
# ## 2 · Build: from one number to a grid
#
# An integer code stands for a real number: x = scale · (code − zero point) (Jacob et al. 2018). A
# **symmetric** grid has no zero point and treats −x and x alike. An **affine** grid stretches from
# the smallest to the largest value, and is widened to include 0 if both lie on the same side of it.
# Its zero point is a whole number, so 0 comes back exactly, while the ends may be off by up to half
# a step. With 4 bits:

# %% [markdown] tags=["zh"]
# ## 2 · 实现：从一个数到一张网格
#
# 整数编码代表一个实数：x = 缩放因子 · (编码 − 零点)（Jacob 等 2018）。**对称**网格没有零点，
# −x 与 x 一视同仁；**仿射**网格从最小值铺到最大值（两者若在 0 的同一侧，则扩到包含 0）。零点是整数，
# 所以 0 能精确还原，两端则最多可能差半个步长。以 4 比特为例：

# %%
values = torch.tensor([-0.62, 0.0, 0.11, 0.37, 1.0])
grids = affine.quantize(values, 4, symmetric=True), affine.quantize(values, 4, symmetric=False)
columns = {"value": values.tolist()}
for name, q in zip(("symmetric", "affine"), grids, strict=True):
    columns[f"code, {name}"] = q.codes().tolist()
    columns[f"dequantized, {name}"] = q.dequantize().tolist()
rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# ### Your turn: a grid
#
# **09-1.** Write `affine_grid(low, high, bits)` (as `answer_1`): return the scale and zero point of
# the affine grid for values from low to high, with codes from 0 to 2^bits − 1. Zero must have a
# code of its own, even when all values are positive or all are negative.
#
# <details><summary>Hint</summary>First widen the range until it contains 0. The zero point is the
# code at which the value 0 lies, a whole number.</details>

# %% [markdown] tags=["zh"]
# ### 动手：一张网格
#
# **09-1.** 写出 `affine_grid(low, high, bits)`（赋给 `answer_1`）：取值从 low 到 high、编码从 0 到 2^bits − 1 时，
# 仿射网格的缩放因子和零点。即使所有值都为正，或都为负，零也必须有自己的编码。
#
# <details><summary>提示</summary>先把范围扩到包含 0。零点是数值 0 所在的编码，是一个整数。</details>

# %% tags=["exercise", "ex-09-1"]
answer_1 = ...  # def answer_1(low, high, bits): return scale, zero_point

# %%
check("09-1", answer_1)

# %% [markdown] tags=["solution", "ex-09-1"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_1(low, high, bits):
#     low, high = min(low, 0), max(high, 0)
#     scale = (high - low) / (2**bits - 1)
#     return scale, round(-low / scale)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Our version, for many rows at once, and the function that then puts values on the grid:

# %% [markdown] tags=["zh"]
# 我们的实现，一次处理许多行；以及随后把数值放到网格上的函数：

# %%
show_source(affine.grid, affine.round_to_grid)

# %% [markdown] tags=["en"]
# How far off is a value? If values are spread evenly between levels a step s apart, the error e is
# spread evenly from −s/2 to s/2, and the mean of e² over that interval is s²/12. The root mean
# square is therefore s/√12. By hand, on the symmetric grid above: s = 1/7 = 0.143, and s/√12 =
# 0.041. The five errors are 0.049, 0, 0.033, 0.059 and 0; their root mean square is 0.037. The
# largest value that a scale covers sets its step, so more scales mean smaller steps: one for the
# **tensor**, one for each output **channel**, or one for each **group** of values in a row. The
# table compares the formula (computed) with the error (measured) on a real layer of `stdlib-gpt`:

# %% [markdown] tags=["zh"]
# 误差有多大？若数值均匀落在相距 s 的两个量化级之间，误差 e 就均匀分布在 −s/2 到 s/2 之间，e² 在这一段上的平均值是 s²/12，
# 所以均方根误差是 s/√12。拿上面的对称网格手算：s = 1/7 = 0.143，s/√12 = 0.041；五个误差是 0.049、0、0.033、0.059、0，
# 均方根为 0.037。步长由同一缩放因子下最大的值决定，
# 所以缩放因子越多，步长越小：**逐张量**（整个张量一个）、**逐通道**（每个输出通道一个），
# 或**分组**（每行中每组数一个）。下面在 `stdlib-gpt` 的一个真实层上对照公式（计算）与误差（实测）：

# %% tags=["nbval-ignore-output"]
weight = points.language_model().get_submodule(measure.SHOWN).weight.detach()
rows = []
for n_bits, (scales, options) in product((2, 4, 8), measure.GRIDS.items()):
    q = affine.quantize(weight, n_bits, **options)
    formula = (q.scale.square().mean() / 12).sqrt().item()
    error = (q.dequantize() - weight).square().mean().sqrt().item()
    rows.append(
        {
            "bits": n_bits,
            "scales": scales,
            "step / √12": formula,
            "RMS error, measured": error,
            "ratio": error / formula,
            "bits per weight": 8 * q.nbytes / weight.numel(),
        }
    )
table(rows, kind="measured")
errors = [row["RMS error, measured"] for row in rows[-4:]]  # at 8 bits
assert errors == sorted(errors, reverse=True)
assert all(abs(row["ratio"] - 1) < 0.05 for row in rows[-4:])

# %% [markdown] tags=["en"]
# Read the column "ratio": 1 means that the formula is right. (A row has 192 weights, so "groups of
# 128" means one group of 128 and one of 64; the formula's mean gives both the same weight.) A
# symmetric 2-bit grid has three levels. With one scale for the tensor, most weights round to zero
# on it: they are not "spread evenly" between levels, and their error is their own magnitude.
#
# ## 3 · Explore: bits, scales, quality
#
# Every weight matrix of `stdlib-gpt` is put on the grid you choose. Left: one neuron's weights and
# levels. Right: the size of the file and the quality on held-out source code. The model is really
# run again and compared with fp32 window by window, so the interval is that of the difference. How
# few bits can you use with one scale for each tensor? How many fewer with one scale for every 32
# weights?

# %% [markdown] tags=["zh"]
# 看“比值”一列：1 表示公式正确。（每行 192 个权重，“每组 128 个”其实是 128 与 64 各一组，公式里的平均对两组一视同仁。）
# 2 比特的对称网格只有三个量化级；整个张量共用一个缩放因子时，
# 多数权重都舍入成零，谈不上“均匀落在量化级之间”，误差就是它们自身的大小。
#
# ## 3 · 探索：比特、缩放因子、质量
#
# 把 `stdlib-gpt` 的每个权重矩阵都放到你选的网格上。左边是一个神经元的权重和它的量化级；右边是文件大小，
# 以及在留出源码上的质量：模型真的重新跑一遍，并逐窗口与 fp32 相比，所以区间是差值的区间。
# 每个张量只用一个缩放因子，最少能用几比特？每 32 个权重用一个，又能少用几比特？

# %% tags=["nbval-ignore-output"]
explore(figures.bit_width, frames=7, most=28)

# %% [markdown] tags=["en"]
# ## 4 · Measure: is the model 75% smaller?
#
# An 8-bit code is a quarter of 32 bits. But a model is more than the weights of its linear layers.

# %% [markdown] tags=["zh"]
# ## 4 · 实测：模型真的小了 75% 吗？
#
# 8 比特的编码是 32 比特的四分之一。但模型不只是线性层的权重。

# %%
minilm = points.encoder()[0]
show(figures.parts(minilm))

# %%
table(verdicts.file_rows(minilm, bits))
sizes = verdicts.file_sizes(minilm, bits=8)
p_size.reveal(100 - 100 * sizes["linear"][1] / points.weight_bytes(minilm))

qwen, rows = PRESETS["qwen3-8b"], []
for name in ("bf16", "int8", "int4"):
    n_bytes = cost.weight_bytes(qwen, name)
    room = 24 * GIB - n_bytes
    row = {
        "format of Qwen3-8B": name,
        "weights (GB)": n_bytes / 1e9,
        "read per token (GB)": inference.decode_bytes(qwen, 0, format=name) / 1e9,
        "cache in the rest of 24 GB (tokens)": room // cost.kv_cache_bytes(qwen, 1),
    }
    rows.append(row)
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# The files are really written and measured. Codes are packed without gaps, so 3 bits take 3 bits. A
# tool that leaves the embedding tables in floats saves nothing on them, and they are half of
# MiniLM. With the tables in 8 bits as well, only scales, biases and norms keep the saving below
# 75%. A scale (4 bytes) for every 32 weights adds one bit per weight, whether a weight has 8 bits
# or 4. And 75% means smaller *than fp32*: most models are stored in 16 bits today, and 8 bits save
# only half of that.
#
# The second table shows such a model, with every weight in the row's format (INT4 with a 16-bit
# scale for every 128 weights) and the cache in 16 bits. While a text is short, generating a token
# reads little besides the layers and the table for the logits, so half the bytes take at best half
# the time. A "24 GB" card (25.8 · 10⁹ bytes) holds the model in all three formats. Fewer bits leave
# more room for the cache: from 63,668 tokens it grows to 119,215 in INT8 and 146,121 in INT4
# (nothing else counted). One text has at most 40,960 tokens, so in the three formats the card has
# room for one, two and three full-length texts side by side. [16](16_decoding.ipynb) measures where
# INT4 pays off and how closely the time follows these bytes.
#
# Two points for the board, both *weight-only*: the arithmetic stays in fp32, with the same
# operators on different numbers, so no time is saved.

# %% [markdown] tags=["zh"]
# 文件大小是真的写到磁盘上量出来的；编码之间不留空隙，3 比特就只占 3 比特。工具若让嵌入表保留浮点，
# 就省不下表的那一份，而表占 MiniLM 的一半。表也用 8 比特之后，离 75% 差的那一点
# 是缩放因子、偏置和归一化。每 32 个权重一个缩放因子（4 字节），等于每个权重多 1 比特，无论原来是 8 比特还是 4 比特。
# 另外，75% 是*与 fp32 相比*：如今多数模型以 16 比特存放，8 比特只能再省一半。
#
# 第二张表就是这样一个模型，全部权重都用该行所列的格式（INT4 每 128 个有一个 16 比特的缩放因子），缓存用 16 比特。
# 文本不长时，每生成一个 token 读取的主要就是各层的权重和计算 logits 的那张表，所以字节减半，用时最多缩短一半。
# 标称 24 GB 的卡（25.8 · 10⁹ 字节）三种都放得下：比特数减少，腾出的空间归缓存，
# 可存的 token 从 63,668 个增到 INT8 的 119,215 个、INT4 的 146,121 个（其他占用不计）。
# 一段文本最多 40,960 个，所以三种格式分别能同时放下一段、两段、三段满长的文本。
# INT4 在哪里划算、用时在多大程度上由这些字节决定，实测见 [16](16_decoding.ipynb)。
#
# 给总榜加两个点，都是*只量化权重*：计算仍用 fp32，跑的是同样的算子，只是数值不同，所以不省时间。

# %% tags=["nbval-ignore-output"]
board.add(technique="8-bit weights, per channel", **measure.rounded_point(8, axis=0))
board.add(technique="4-bit weights, groups of 32", **measure.rounded_point(4, group_size=32))

# %% [markdown] tags=["en"]
# ## 5 · Build: computing in integers
#
# To save time as well, the *inputs* have to be integers too. A whole matrix product then runs on
# codes, and the scales are multiplied in once, at the end. Weights are known beforehand; the
# input's grid is found in one of two ways:
#
# - **dynamic**: from each input as it arrives. No data needed, but an extra pass over every input.
# - **static**: beforehand, by running calibration data through *observers*. No range to find at run
#   time, but a wrong range where the data was not typical.

# %% [markdown] tags=["zh"]
# ## 5 · 实现：用整数计算
#
# 想连时间也省下，*输入*也得是整数。这样整个矩阵乘法都在编码上进行，缩放因子只在最后乘一次。
# 权重事先已知；输入的网格有两种定法：
#
# - **动态**：每个输入到来时现算范围。不需要数据，但每次都要多扫一遍输入。
# - **静态**：事先让校准数据经过*观察器*定好。运行时不必再求范围；校准数据若不典型，范围就不准。

# %%
show_source(int8.Int8Linear.forward, int8.Int8Linear.product)

# %% [markdown] tags=["en"]
# Our `int_matmul` computes the integer product on fp32 units, exactly: it shows what integer
# arithmetic gives, not how fast it is. On the same grid, torch's own kernel has to give the same
# output:

# %% [markdown] tags=["zh"]
# 这里的 `int_matmul` 借 fp32 单元做整数运算，结果分毫不差：它演示整数计算的结果，不代表速度。
# 同一网格交给 torch 自己的内核，输出应当相同：

# %%
torch.manual_seed(0)
layer, x = nn.Linear(384, 64), torch.randn(32, 384)
q, zeros = affine.quantize(layer.weight.detach(), 8, axis=0), torch.zeros(64, dtype=torch.long)
with engines.quiet(), torch.no_grad():
    codes = torch.quantize_per_channel(layer.weight, q.scale, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(codes, layer.bias)
    theirs = torch.ops.quantized.linear_dynamic(x, packed, True)  # inputs in 7 bits
ours = int8.Int8Linear(layer, bits=7)(x)
equal = (ours - theirs).abs().max() < 1e-5 * ours.abs().max()
print(
    "quantized::linear_dynamic:",
    lab.tr("the same output") if equal else lab.tr("a different output"),
)

# %% [markdown] tags=["en"]
# ### The article's two listings
#
# Their headings are swapped: the dynamic call stands under *static* quantization, and the static
# one under dynamic. The static listing also passes its calibration data to `prepare`, whose second
# argument is `inplace`. Nothing fails: the data is taken as "true", and calibration never happens.
# The correct steps are **prepare**, **run** the data through, **convert**. The model also needs a
# `QuantStub` where floats become codes and a `DeQuantStub` where they become floats again:

# %% [markdown] tags=["zh"]
# ### 文章的两段代码
#
# 两段代码的标题写反了：动态量化的调用放在了*静态*量化之下，静态的反而放在动态之下。
# 静态那段还把校准数据交给了 `prepare`，而它的第二个参数是 `inplace`。
# 这样写不报错：数据被当成了“真”，校准根本没有发生。正确的三步是 **prepare**、把数据**跑**一遍、**convert**；
# 模型里还要有 `QuantStub`（浮点在此变成编码）和 `DeQuantStub`（在此变回浮点）：


# %% tags=["nbval-ignore-output"]
def run_listing(name, stubs=True, as_printed=False):
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).requires_grad_(False).eval()
    model = (
        nn.Sequential(ao.QuantStub(), layer, ao.DeQuantStub()) if stubs else nn.Sequential(layer)
    )
    model.qconfig, exact = ao.get_default_qconfig("x86"), layer(data[0])
    with engines.quiet():
        observed = ao.prepare(model, data) if as_printed else ao.prepare(model)
        for batch in [] if as_printed else data:
            observed(batch)
        observer = observed[1 if stubs else 0].activation_post_process
        row = {"steps": name, "observers saw data": bool(observer.min_val.isfinite().all())}
        try:
            error = 100 * int8.relative_error(ao.convert(observed)(data[0]), exact)
        except NotImplementedError:
            error = None
    return row | {"runs": error is not None, "output error (%)": error and round(error, 1)}


# %% tags=["nbval-ignore-output"]
data = list(torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(0)) * 3)
printed = run_listing("prepare(model, data); convert", as_printed=True)
meant = run_listing("prepare; run the data; convert")
bare = run_listing("the same without stubs", stubs=False)
table([printed, meant, bare], kind="measured")
assert printed["output error (%)"] > 50 > 5 > meant["output error (%)"]
assert meant["observers saw data"]
assert not printed["observers saw data"]
assert not bare["runs"]

# %% [markdown] tags=["en"]
# With the data in the wrong place, the observers saw nothing, and every activation has scale 1 and
# zero point 0. Codes start at 0, so all negative values are lost, and most of the output's error
# comes from that. torch only warns (silenced here) and raises no exception. Without stubs, the
# model can be prepared and converted, but fails when it runs.
#
# The article writes `torch.quantization`, today an alias of `torch.ao.quantization`. It still works
# but is deprecated; its successors are `torchao` and its PT2E ("PyTorch 2 export") flow, which
# quantizes an exported graph.
#
# ## 6 · When it breaks: outliers
#
# All channels of an input share one scale. If one channel is 20 times larger than the others, the
# others get only a twentieth of the levels. MiniLM has such channels, as BERT models often do. A
# channel's *peak* is its largest magnitude; "smoothed" is explained below:

# %% [markdown] tags=["zh"]
# 数据放错了地方，观察器什么也没看到，激活值的缩放因子全是 1、零点全是 0。编码从 0 起，负值全部丢失，
# 输出误差主要由此而来；torch 只给警告（这里已屏蔽），并不报错。
# 没有 stub 时，准备和转换都能通过，运行时才失败。
#
# 文章写的 `torch.quantization` 如今是 `torch.ao.quantization` 的别名。它还能用，但已弃用：
# 继任者是 `torchao` 及其 PT2E（PyTorch 2 Export）流程，后者量化的是导出的计算图。
#
# ## 6 · 何时失效：离群值
#
# 输入只有一个缩放因子，所有通道共用。若某个通道是其他通道的 20 倍，其他通道就只剩二十分之一的量化级。
# 和许多 BERT 类模型一样，MiniLM 里就有这样的通道（*峰值*指一个通道的最大绝对值；“平滑”见下文）：

# %% tags=["nbval-ignore-output"]
rows = []
for name, peaks in measure.channel_peaks().items():
    if name.startswith("layers.0."):
        smoothed = int8.outlier_ratio(measure.smoothed_peaks(name))
        rows.append(
            {
                "input to layer": name.removeprefix("layers.0."),
                "channel with the largest peak": int(peaks.argmax()),
                "its peak": round(peaks.max().item(), 1),
                "median peak": round(peaks.median().item(), 2),
                "ratio": round(int8.outlier_ratio(peaks), 1),
                "ratio after smoothing": round(smoothed, 1),
            }
        )
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
show(figures.outliers())

# %% [markdown] tags=["en"]
# The remedies are different ways to adjust the range:
#
# - *Cutting off*: give up the outliers and keep the rest precise.
# - *Scales by channel*: easy for weights: each output channel is one sum, and its scale is
#   multiplied in afterwards. Impossible for inputs: the product sums over their channels.
# - *Scales by token*: possible for inputs, whose rows are tokens. But an outlier channel appears in
#   every row.
# - *Outliers apart* (LLM.int8, Dettmers et al. 2022): the few channels with magnitudes of 6 or more
#   are multiplied in floats, the rest in integers with scales by token.
# - *Smoothing* (SmoothQuant, Xiao et al. 2023): divide input channel j by a factor and multiply
#   column j of the weight by the same factor. The product stays the same. A weight's scales belong
#   to *output* channels, so none of them isolates an input column either. Smoothing still helps,
#   because weights are distributed more evenly and can take over part of the difficulty; `alpha`,
#   from 0 to 1, sets how much. We take 0.5, and 0.8 for the last linear layer of a feed-forward
#   block (`down`), whose inputs have the largest ratio. Smoothing does not help everywhere: the
#   ratio of `attention.body.out` rises from 5.9 to 6.1, because the factors also depend on the size
#   of the weight's columns.

# %% [markdown] tags=["zh"]
# 对策是调整范围的种种办法：
#
# - *截断*：放弃离群值，换来其余部分的精度。
# - *逐通道缩放*：对权重很容易，每个输出通道各是一个和，求完和再乘缩放因子即可；对输入不行，
#   因为乘积正是沿输入通道求和的。
# - *逐 token 缩放*：输入的每一行是一个 token，所以可行。但离群通道在每一行里都有。
# - *离群值另算*（LLM.int8，Dettmers 等 2022）：绝对值达到 6 的少数通道用浮点相乘，其余用整数，逐 token 缩放。
# - *平滑*（SmoothQuant，Xiao 等 2023）：输入的第 j 个通道除以一个因子，权重的第 j 列乘上它，乘积不变。
#   权重的缩放因子属于*输出*通道，同样没有哪一个能把某个输入列单独隔开；平滑之所以有效，是因为权重分布平坦，
#   能分担一部分量化难度。`alpha`（0 到 1）决定分担多少。我们取 0.5；前馈网络的最后一个线性层（`down`）输入的比值最大，
#   取 0.8。并非处处有效：`attention.body.out` 的比值从 5.9 升到 6.1，因为因子还取决于权重各列的大小。

# %%
show_source(int8.smoothing)

# %% [markdown] tags=["en"]
# MiniLM with our INT8 linear layers, adjusted in all these ways, is judged on the functions that
# the record names, by two metrics:
#
# - the cosine between the INT8 and the fp32 embedding of a docstring;
# - the MRR (mean reciprocal rank): each docstring searches for its function's code, and 1 / (rank
#   of the right one) is averaged.
#
# The more functions compete, the lower the MRR. fp32's own MRR is 0.92 among the 40 functions that
# section 7 measures here, 0.91 among the board's 60 (notebook 01), 0.84 among 120 (notebook 10),
# 0.76 among the 300 recorded in section 7, and 0.60 among the 931 here. So compare an MRR only with
# fp32's on the same functions. Differences are taken text by text. The first row is the *control*,
# whose ranges were never adjusted: scale 1 as in the listing above, but with the zero point in the
# middle, so negative values survive. If even the control lost nothing, the experiment could not
# show any loss.

# %% [markdown] tags=["zh"]
# 把 MiniLM 的线性层换成我们的 INT8 层，用以上各种办法调整范围，在存档注明的那些函数上比较：同一段文档字符串的 INT8
# 嵌入与 fp32 嵌入的余弦；以及 MRR（平均倒数排名）：用每段文档字符串检索它的函数代码，取正确结果名次的倒数，
# 再求平均。参与检索的函数越多，MRR 越低：fp32 自己的 MRR，在第 7 节于本机重做时所用的 40 个函数中是 0.92，
# 总榜的 60 个中是 0.91（第 01 篇），120 个中是 0.84（第 10 篇），第 7 节的 300 个中是 0.76，这里的 931 个中是 0.60。
# 所以只能与同样这些函数上的 fp32 相比。差值逐条文本计算。
# 第一行是*对照*，它的范围从未调整：缩放因子为 1，与上面那段代码相同，但零点在中间，负值得以保留。
# 若连它都毫无损失，这个实验就什么损失也测不出来。

# %%
show(figures.forms())

# %%
table(measure.form_rows(), kind="recorded")

# %% [markdown] tags=["en"]
# **The record above: 931 functions, calibrated once.** Look at how much each row cuts off. A
# percentile row cuts its share off the values of each calibration docstring, rounded down to whole
# values, and averages the ends over the docstrings (Wu et al. take the percentile of all values
# together). With docstrings of 7 to 64 tokens, 0.001% is less than one value, so nothing is cut. In
# the 18 of the 24 layers whose input has 384 channels, 0.01% cuts nothing in 118 of the 150
# docstrings. These two rows therefore mostly show the effect of averaging the docstrings' extremes.
#
# - With 0.1% of the values cut off at either end, the MRR falls by 0.084, more than with one scale
#   for a whole weight: in this model the outliers carry information.
# - With 0.01%, the MRR loses nothing and even gains 0.011. This is the only row whose interval lies
#   wholly above 0, although its embeddings are no nearer to fp32's than with the whole range. So
#   the range need not reach the farthest value of all texts; but the gain is one row of eleven, and
#   no reason to expect a gain on other texts.
# - The only other row that lies wholly above the dashed line is the one with the outliers apart.
#   Where an interval crosses that line, these texts cannot tell.

# %% [markdown] tags=["zh"]
# **上面的存档：931 个函数，只校准一次。** 看看各行截断了多少。“百分位”各行对每条校准文档字符串分别按比例截断（个数向下取整），再对各条的两端取平均
# （Wu 等是把全部数值放在一起取百分位）。文档字符串只有 7 到 64 个 token，0.001% 不足一个值，实际什么也没截；
# 0.01% 在输入为 384 个通道的层（24 层中的 18 层）里，150 条中有 118 条一个值也没截。这两行显示的主要是对各条极值取平均的效果。
# 两端各截掉 0.1% 的值，MRR 降低 0.084，比整个权重共用一个缩放因子还多：这个模型的离群值携带信息。
# 各截掉 0.01%，MRR 不降反升 0.011，这是唯一区间完全在 0 以上的一行，而嵌入并不比用完整范围时更接近 fp32。
# 可见，范围不必覆盖所有文本中最远的值；但这样的提高，十一行中只有这一行，不能指望换一批文本还会出现。
# 另一个整个区间都在虚线以上的，是把离群通道分开计算的那一行。区间跨过虚线的，这些文本分辨不出。

# %% [markdown] tags=["en"]
# **The next record: 3,000 functions, calibrated five times.** To decide the claim we named one way:
# static ranges with the smoothing that some of section 7's engines use. Its rule was registered
# before this record was made.
#
# - Each row is one draw of calibration texts, compared with fp32 on the same 3,000 functions,
#   methods included. The draws differ by about 0.3 points, about as much as the standard error over
#   functions.
# - The verdict takes each function's mean over the draws; its interval is over functions alone. But
#   a user calibrates only once, and three of the five draws have intervals that reach below -1%. So
#   the verdict says how smoothing does on average, not that every calibration stays within 1%.

# %% [markdown] tags=["zh"]
# **下一份存档：3,000 个函数，校准五次。** 为判定论断，只指定一种方式：静态范围加平滑，与第 7 节中几种引擎的平滑相同；
# 规则在做这份存档之前已登记。
#
# - 每一行是一次抽取的校准文本，与同样这 3,000 个函数（含方法）上的 fp32 相比。各次抽取之间的差异约 0.3 个百分点，
#   与按函数计算的标准误相当。
# - 结论对每个函数取五次的平均，其区间只按函数计算。实际使用时只校准一次：五次抽取单看，有三次的区间下限低于 -1%，
#   所以结论说的是平滑的平均表现，不是每次校准的损失都在 1% 以内。

# %%
runs = record.read_record(int8_ranges_2.NAME)["runs"]
once = [run for run in runs if run["form"] != "smoothed"]  # fp32 and the control
rows = []
for draw in runs:
    if draw["form"] == "smoothed":
        less = int8_ranges_2.cases([*once, draw])["smoothed-3000"]
        row = {"calibration seed": draw["seed"], "MRR, change from fp32 (%)": less.mean}
        rows.append(row | {"interval, low": less.low, "interval, high": less.high})
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# Four of the rows above, repeated here with fewer texts:

# %% [markdown] tags=["zh"]
# 在本机用较少的文本重做上面的四行：

# %% tags=["nbval-ignore-output"]
cosines = measure.form_cosines(n_docstrings, n_calibration)
rows = []
for form, values in cosines.items():
    p5 = experiment.percentile(values.numpy())
    row = {"INT8 linear layers": form, "cosine, mean": values.mean().item()}
    row |= {"cosine, 5th percentile": p5.mean, "interval, low": p5.low, "interval, high": p5.high}
    rows.append(row)
table(rows, kind="measured", digits=4)
agree = verdicts.cosines_agree(cosines)
print(
    lab.tr("mean cosines agree with the record")
    if agree
    else lab.tr("mean cosines differ from the record")
)

# %% [markdown] tags=["en"]
# One row of the record says "7-bit inputs". A CPU without VNNI adds two 8-bit products in 16 bits,
# where the sum may not fit. torch's dynamic form therefore leaves one bit of every input unused,
# whatever the CPU.
#
# How long does an INT8 product take? The published figures are speeds relative to fp16, for one
# feed-forward layer on a GPU:
#
# - the INT8 product alone, with nothing quantized for it;
# - with ranges found by token and values rounded (the paper's *vector-wise*);
# - LLM.int8 as a whole, which also computes the outliers separately.
#
# At a width of 768, ranges and rounding bring the speed down from 0.99 to 0.43 times fp16's, and
# computing the outliers separately brings it down to 0.14. Both costs grow with the width, the
# product with its square: from a width of 5,140 on, all three are faster than fp16.

# %% [markdown] tags=["zh"]
# 存档中有一行是“输入 7 比特”。没有 VNNI 的 CPU 会把两个 8 比特乘法的结果相加并存进 16 比特，可能装不下。
# 因此 torch 的动态形式无论在什么 CPU 上都让每个输入空出 1 比特不用。
#
# 这样的乘法要花多少时间？文献中一个前馈层在 GPU 上的结果，均为相对 fp16 的速度：只有 INT8 乘法本身，不含任何量化；
# 加上逐 token 求范围和舍入（论文称*逐向量*量化）；以及完整的 LLM.int8，还要把离群通道分开计算。
# 宽度 768 时，求范围和舍入使速度比从 0.99 降到 0.43，离群通道分开计算再降到 0.14。这两项开销与宽度成正比，
# 乘法则与宽度的平方成正比：宽度从 5,140 起，三者都比 fp16 快。

# %%
show(figures.published_speeds())

# %%
rows = [
    {"d_model": row["d_model"]} | {name: row[key] for key, name in figures.SPEEDS.items()}
    for row in read_published("llm_int8")
]
table(rows, kind="published")

# %% [markdown] tags=["en"]
# ## 7 · Real engines on two kinds of CPU
#
# The same encoder in nine engines (recorded), built and run on a CPU without VNNI and on one with
# it:
#
# - *smoothed* is our smoothing before torch's own dynamic INT8, here with one scale per channel and
#   the token table in 8 bits as well.
# - OpenVINO's INT8 is calibrated on docstrings by NNCF, its compression tool, after the same
#   smoothing, with its token table in 8 bits.
# - In both records, torch static, ONNX Runtime and OpenVINO have 7-bit weights or inputs, which
#   only the CPU without VNNI needs. torch's dynamic form always leaves one bit of its inputs
#   unused.
# - torch's static form also rounds every layer's *output* to one scale. Our static form leaves
#   outputs in floats, so torch's row is not the same as section 6's "static, min and max".
# - Times are medians of five runs on two threads; this record keeps no intervals. Sizes, cosines
#   and the MRR are those of the newest record.

# %% [markdown] tags=["zh"]
# ## 7 · 真实引擎，两类 CPU
#
# 同一个编码器放进九种引擎（存档），分别在没有 VNNI 和有 VNNI 的 CPU 上构建并运行。
# *平滑*指先做我们的平滑，再用 torch 自己的动态 INT8，权重改为逐通道缩放，token 嵌入表也用 8 比特。
# OpenVINO 的 INT8 先做同样的平滑，再由其压缩工具 NNCF 在文档字符串上校准，token 嵌入表也是 8 比特。
# 两份存档中，torch 静态、ONNX Runtime 和 OpenVINO 的权重或输入都是 7 比特，其实只有没有 VNNI 的 CPU 才需要；
# torch 动态形式的输入总空出 1 比特。torch 的静态形式还把每层的*输出*也按单一缩放因子舍入；我们的实现让输出保留浮点，
# 所以 torch 静态这一行不同于第 6 节的“静态，最小值与最大值”。时间是两个线程上五次运行的中位数，这份存档没有区间。
# 大小、余弦和 MRR 取自最新的存档。

# %%
show(figures.engines())

# %%
table(measure.engine_rows(), kind="recorded")
p_without.reveal(measure.recorded_engines(vnni=False)["OpenVINO INT8"]["16x128"])
p_with.reveal(measure.recorded_engines(vnni=True)["OpenVINO INT8"]["16x128"])

# %% [markdown] tags=["en"]
# The same claim, 60% less latency, on two CPUs. Which engine would you choose? The fastest is not
# always allowed: an engine has to keep the quality, here 99% of fp32's MRR. (This threshold
# compares means over 300 functions, whose difference is uncertain by about 0.01, more than 1% of
# the MRR: smoothed torch INT8 misses it on one CPU, at 98.6%, and passes on the other, at 99.3%. It
# is a way to choose, not a proof.)

# %% [markdown] tags=["zh"]
# 同一个论断，延迟降低 60%，放到两块 CPU 上。你会选哪种引擎？最快的未必能用：还得保住质量，
# 这里取 fp32 的 MRR 的 99%。（这道门槛比较的是 300 个函数上的平均值，差值的不确定度约 0.01，超过 MRR 的 1%：
# 平滑后的 torch INT8 在一块 CPU 上是 98.6%，没有达到；在另一块上是 99.3%，达到了。这道门槛用来挑选，不算证明。）

# %%
rows = []
for vnni, cpu in measure.CPUS.items():
    every = measure.recorded_engines(vnni).values()
    good = [row for row in every if verdicts.keeps_quality(row)]
    among = {"of all engines": every, "of those with at least 99% of fp32's MRR": good}
    for name, candidates in among.items():
        best = min(candidates, key=lambda row: row["16x128"])
        rows.append(
            {
                "CPU": cpu,
                "fastest": name,
                "engine": best["engine"],
                "time / fp32": measure.interval_text(best, "16x128"),
                "MRR": best["mrr"],
                "60% less time": best["16x128"] <= 0.4,
            }
        )
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# The two CPUs differ in more than one set of instructions, so the comparison cannot say why one of
# them is so much faster. Next, three of the engines are built and timed here, on 4 texts of 64
# tokens; each ratio on this CPU has its interval. The first row is fp32 against itself, the A/A
# noise of this run: a ratio within it says nothing.

# %% [markdown] tags=["zh"]
# 并排的两块 CPU 差别不止一组指令，所以这样的比较说不出原因：其中一块为什么快得多，这里没有答案。
# 在本机重新构建其中三个引擎并计时，4 条各 64 个 token 的文本，本机的每个比值都带区间。第一行是 fp32 与它自己相比，
# 即本次运行的 A/A 噪声：落在其中的比值什么也说明不了。

# %% tags=["nbval-ignore-output"]
here, profile = measure.build_engines(n_calibration)
table(measure.time_rows(here))

# %% [markdown] tags=["en"]
# Where does OpenVINO's INT8 spend its time? Its own counters show it, operator by operator.
# Smoothing divides the inputs of 24 linear layers. Twelve of these inputs (`qkv`, `up`) come from a
# norm whose output the residual needs too, so the division cannot be folded into the norm; the
# other twelve (`out`, `down`) do not come from a norm. (By default, the paper smooths only inputs
# that come from a norm.) Where a division is a separate operator, OpenVINO fuses it with the
# rounding to codes; the table counts these operators:

# %% [markdown] tags=["zh"]
# OpenVINO 的 INT8 把时间花在哪里？用它自己的计数器逐个算子来看。平滑要对 24 个线性层的输入做除法。
# 其中 12 个（`qkv`、`up`）的输入来自归一化，而归一化的输出残差也要用，除法无法并入归一化；另外 12 个（`out`、`down`）的输入并非来自归一化。
# （论文默认只平滑来自归一化的输入。）除法单独成为算子时，OpenVINO 把它与“舍入成编码”这一步融合；下表统计的就是这些算子：

# %% tags=["nbval-ignore-output"]
table(measure.operator_rows(profile(*experiment.full_batch(4, 64))), kind="measured")

# %% [markdown] tags=["en"]
# Sizes and quality: each recorded row stands above the one measured here. The MRR differs here
# because fewer functions compete: compare it with fp32's beside it.

# %% [markdown] tags=["zh"]
# 大小与质量，上一行是存档，下一行是本机实测。这里的 MRR 与存档不同，因为参与检索的函数少：
# 请与旁边 fp32 的 MRR 相比。

# %% tags=["nbval-ignore-output"]
qualities = measure.compare_quality(here, n_docstrings)
table(measure.quality_rows(qualities))
agree = verdicts.qualities_agree(qualities)
print(
    lab.tr("sizes and mean cosines agree with the record")
    if agree
    else lab.tr("sizes or mean cosines differ from the record")
)

# %% tags=["nbval-ignore-output"]
for name in ("OpenVINO INT8", "torch dynamic INT8"):
    engine = here[name]
    board.add(technique=name, **points.encoder_point(engine.embed, engine.nbytes))

# %% [markdown] tags=["en"]
# ### Proxy and task
#
# torch's dynamic INT8 has one scale for a whole weight matrix and 7 bits for inputs. How far does
# it move the embeddings, and how much does retrieval suffer?

# %% [markdown] tags=["zh"]
# ### 代理指标与任务
#
# torch 的动态 INT8 让整个权重共用一个缩放因子，输入只有 7 比特。嵌入偏了多远，检索又受了多少影响？

# %% tags=["nbval-ignore-output"]
ranks = measure.compare_ranks(here["torch dynamic INT8"], n_docstrings)
rows = []
for name, figure in ranks.items():
    ends = {"interval, low": figure.low, "interval, high": figure.high}
    rows.append({"metric": name, "torch dynamic INT8": figure.mean} | ends)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Both metrics are right, but answer different questions. The cosine is what counts if INT8 queries
# search a *stored* index of fp32 embeddings. The MRR is what counts if the same engine embeds
# everything: a shift that all texts share then cancels out. But 40 texts cannot show the effect
# that remains: the interval of the difference spans about 3 points either way, while among the 300
# functions of the record this engine loses 3% of fp32's MRR. The task is less sensitive than the
# cosine, but not insensitive. Which metric you need depends on what you ship.
#
# ## 8 · "Why is my INT8 model slower?"
#
# First, the instructions that this CPU has for low-precision numbers. Then one linear layer (256
# tokens, 384 → 1536, unless the row says otherwise) in several forms: the time of each relative to
# fp32's, measured interleaved, with its interval. A form counts as different only if its whole
# interval lies outside the A/A band.

# %% [markdown] tags=["zh"]
# 两个指标都对，回答的是不同的问题。若用 INT8 查询去检索*已存好*的 fp32 嵌入索引，要看的是余弦。若所有文本都由同一引擎编码，
# 要看的是 MRR：各文本共同的偏移会相互抵消。但 40 条文本看不出剩下的影响：差值的区间上下各约 3 个百分点；
# 而在存档的 300 个函数上，这个引擎的 MRR 比 fp32 低 3%。任务的反应比余弦小，并非毫无反应。需要哪一个，取决于你的用途。
#
# ## 8 · “为什么我的 INT8 模型更慢？”
#
# 先看这块 CPU 有哪些处理低精度数的指令，再看一个线性层（除另注明外，256 个 token，384 → 1536）的几种形式：
# 每种的时间与 fp32 之比，交替测量，带区间。整个区间都在 A/A 噪声带之外，才算有差别。

# %% tags=["nbval-ignore-output"]
uses = {
    "avx2": "8-bit products in three instructions; sums of two must fit in 16 bits",
    "avx512": "the same, twice as wide",
    "vnni": "8-bit products and their sums in one instruction",
    "amx": "8-bit products of whole tiles",
    "bf16": "bfloat16 products",
}
features = bench.cpu_features()
rows = [{"instructions": i, "what they do": uses[i], "this CPU": features[i]} for i in features]
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
layer, x = nn.Linear(384, 1536).requires_grad_(False), torch.randn(256, 384)
grid = int8.input_grid(x.min().item(), x.max().item())
scale, zero = (part.item() for part in grid)
q = affine.quantize(layer.weight, 8, axis=0)
codes, zeros = q.codes().to(torch.int8), torch.zeros(1536, dtype=torch.int32)
x_codes = affine.round_to_grid(x, *grid, 8).sub(128).to(torch.int8)
with engines.quiet():
    kernel = ao.quantize_dynamic(nn.Sequential(layer), dtype=torch.qint8)


def fake():
    rounded = torch.fake_quantize_per_tensor_affine(x, scale, int(zero), 0, 255)
    w = torch.fake_quantize_per_channel_affine(layer.weight, q.scale, zeros, 0, -127, 127)
    return nn.functional.linear(rounded, w, layer.bias)


def weights_only():
    return nn.functional.linear(x, codes.float() * q.scale[:, None], layer.bias)


# %% tags=["nbval-ignore-output"]
half, small = deepcopy(layer).bfloat16(), nn.Linear(64, 64).requires_grad_(False)
forms = {
    "weights only: dequantized, then fp32": weights_only,
    "fake quantization: rounded, then fp32": fake,
    "torch._int_mm, 8 x 8 bits": lambda: torch._int_mm(x_codes, codes.T),
    "bf16": lambda: half(x.bfloat16()),
}
first, tiny = "dynamic INT8, torch's kernel", "dynamic INT8, 4 tokens, 64 x 64"
times = bench.compare(lambda: layer(x), {first: lambda: kernel(x)} | forms, warmup=1)
with engines.quiet():
    small_kernel = ao.quantize_dynamic(nn.Sequential(small), dtype=torch.qint8)
many = [torch.randn(4, 64)] * 50  # one call takes microseconds, too short to be timed alone
dynamic, fp32 = lambda: [small_kernel(few) for few in many], lambda: [small(few) for few in many]
slow = {first: times, tiny: bench.compare(fp32, {tiny: dynamic}, warmup=1)}
slow |= dict.fromkeys(forms, times)
show(figures.linear_forms(slow))

# %% tags=["nbval-ignore-output"]
table(measure.linear_rows(slow), kind="measured")
assert all(
    slow[form].ratios[form].mean > 1 for form in (tiny, "fake quantization: rounded, then fp32")
)

# %% [markdown] tags=["en"]
# Each form is a thing to check when an INT8 model is slow:
#
# | what to look at | what it adds or lacks | what to try |
# |---|---|---|
# | small layers, few tokens | finding the range, rounding and converting: a fixed overhead beside little work | larger batches; static ranges; leave small layers in floats |
# | weight-only | codes become floats before the product, which stays in fp32 | useful only where reading weights is the bottleneck (one token at a time); otherwise quantize inputs too |
# | *fake* quantization | it simulates rounding in fp32, for training and calibration | convert, or export to an engine |
# | an integer product | whether this CPU and this build have a fast kernel for it | another engine |
# | bf16 | whether the CPU multiplies bf16 natively | fp32, or another CPU |
# | the CPU | which of the instructions above it has (`lscpu`) | measure; `ONEDNN_MAX_CPU_ISA=AVX2`, set before Python starts, disables the newer ones, in oneDNN and OpenVINO only |

# %% [markdown] tags=["zh"]
# 当 INT8 模型很慢时，每种形式都是一个检查点：
#
# | 看什么 | 多了什么或缺了什么 | 可以试什么 |
# |---|---|---|
# | 层小、token 少 | 求范围、舍入、转换是固定开销，而计算量很小 | 加大批次；用静态范围；小层保留浮点 |
# | 只量化权重 | 编码先变回浮点，乘法仍是 fp32 | 它只在瓶颈是读权重时有用（逐个 token 生成）；否则输入也要量化 |
# | *伪*量化 | 用 fp32 模拟舍入，供训练和校准用 | 转换（convert），或导出到推理引擎 |
# | 整数乘法 | 这块 CPU、这个版本的库有没有快的内核 | 换引擎 |
# | bf16 | CPU 能不能直接做 bf16 乘法 | 用 fp32，或换 CPU |
# | CPU | 上面那些指令它有哪几种（`lscpu`） | 实测；启动 Python 之前设 `ONEDNN_MAX_CPU_ISA=AVX2`，只在 oneDNN 与 OpenVINO 中停用较新的指令 |

# %% [markdown] tags=["en"]
# ## 9 · Verdicts
#
# The second claim is judged by one way from each family: the calibrated one on the 3,000 functions,
# the dynamic one on the 931. All ten ways on the 931 functions are shown; among ten 95% intervals,
# the chance that at least one misses is more than one in twenty. Bonferroni's remedy is to widen
# every interval until all ten hold together with 95% confidence. At that confidence, two of the ten
# ways stay within 1%: the outliers apart, and the row named 99.99th percentile. One does not: the
# cut at the 99.9th. For the others, these texts cannot tell.

# %% [markdown] tags=["zh"]
# ## 9 · 结论
#
# 第二条论断从两类方式中各取一种来判定：校准的一种用那 3,000 个函数，动态的一种用 931 个。931 个函数上的十种方式一并列出；
# 十个 95% 的区间中，至少有一个落空的概率不止二十分之一。
# Bonferroni 的办法是把每个区间都放宽，宽到十个一起成立的把握仍有 95%。在这个置信度下，能保持在 1% 以内的有两种：
# 离群通道分开计算，以及名为第 99.99 百分位的一行；不能的有一种：截断在第 99.9 百分位。其余各种，这些文本分辨不出。

# %% tags=["nbval-ignore-output"]
shapes = verdicts.shape_savings()
size = verdicts.size_evidence(sizes, verdicts.parts(minilm), shapes)
lab.verdict("int8-size", verdicts.int8_size(size))

# %% tags=["nbval-ignore-output"]
forms, differences = verdicts.recorded_forms(), verdicts.recorded_differences()
accuracy = verdicts.accuracy_evidence(forms, differences)
lab.verdict("int8-accuracy", verdicts.int8_accuracy(accuracy))

# %% [markdown] tags=["en"]
# ## 10 · Exercises
#
# **09-2.** Write `stored_bytes(n, bits, group)` (as `answer_2`): the bytes of n packed codes in one
# row, with one fp32 scale for each group. How many bits per weight do 4-bit codes in groups of 32
# really cost?
#
# <details><summary>Hint</summary>Codes are packed without gaps; a last, shorter group needs a scale
# too.</details>

# %% [markdown] tags=["zh"]
# ## 10 · 练习
#
# **09-2.** 写出 `stored_bytes(n, bits, group)`（赋给 `answer_2`）：一行 n 个紧密排列的编码，每组一个 fp32 缩放因子，共多少字节。
# 4 比特、每组 32 个，平均每个权重实际占多少比特？
#
# <details><summary>提示</summary>编码之间没有空隙；最后不满的一组也要一个缩放因子。</details>

# %% tags=["exercise", "ex-09-2"]
answer_2 = ...  # def answer_2(n, bits, group): return ...

# %%
check("09-2", answer_2)

# %% [markdown] tags=["en", "solution", "ex-09-2"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_2(n, bits, group):
#     return (n * bits + 7) // 8 + 4 * ((n + group - 1) // group)
# ```
#
# 4 + 32 / 32 = 5 bits. Scales in 16 bits would make it 4.5, which is what many file formats do.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-09-2"]
# <details><summary>答案</summary>
#
# ```python
# def answer_2(n, bits, group):
#     return (n * bits + 7) // 8 + 4 * ((n + group - 1) // group)
# ```
#
# 4 + 32 / 32 = 5 比特。缩放因子若用 16 比特就是 4.5，许多文件格式正是这样做的。
#
# </details>

# %% [markdown] tags=["en"]
# **09-3, a target.** Beat SmoothQuant. Write `factors(peaks, weight)` (as `answer_3`): from the
# channels' peaks (in,) and the layer's weight (out, in), return the factor by which to divide each
# input channel of `layers.0.ffn.body.down`. On real inputs, in INT8 with one input scale, the error
# of the layer's output must be at most half of the error without factors. No `alpha` gets there (in
# this one layer, our engines' 0.8 even gives a larger error than no factors): try `int8.smoothing`
# first.
#
# <details><summary>Hint</summary>Look at the picture in section 6: how many channels are outliers?
# A factor also enlarges its column of the weight, and with it every row's scale. Leave harmless
# channels alone.</details>

# %% [markdown] tags=["zh"]
# **09-3，一个目标。** 胜过 SmoothQuant。写出 `factors(peaks, weight)`（赋给 `answer_3`）：由各输入通道的峰值（in,）和该层的权重（out, in），
# 给出 `layers.0.ffn.body.down` 每个输入通道要除以的因子。在真实输入上用 INT8 计算、输入只用一个缩放因子时，
# 该层输出的误差不得超过不用因子时的一半。无论 `alpha` 取多少都达不到（单看这一层，我们的引擎取 0.8，误差甚至比不用因子还大）：
# 先用 `int8.smoothing` 试试。
#
# <details><summary>提示</summary>看第 6 节的图：有几个通道是离群的？因子也会放大权重中对应的一列，
# 从而放大每一行的缩放因子。无害的通道就不要动它。</details>

# %% tags=["exercise", "ex-09-3"]
answer_3 = ...  # def answer_3(peaks, weight): return ...

# %%
check("09-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-09-3"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_3(peaks, weight):
#     return (peaks / (2 * peaks.median())).clamp(min=1)
# ```
#
# Every peak above twice the median peak is brought down to that; the other channels stay as they
# are.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-09-3"]
# <details><summary>答案</summary>
#
# ```python
# def answer_3(peaks, weight):
#     return (peaks / (2 * peaks.median())).clamp(min=1)
# ```
#
# 峰值高于中位数两倍的，压到两倍；低于两倍的保持原样。
#
# </details>

# %% [markdown] tags=["en"]
# ## The width, swept
#
# `efflab sweep` ran this whole notebook at each width in the figures; the star is your own run. The
# model is `stdlib-gpt` with one scale for each channel of its weights, computed in fp32 with the
# rounded values.

# %% [markdown] tags=["zh"]
# ## 扫描位宽
#
# `efflab sweep` 用下图中的每种位宽各运行了一遍本篇，曲线是存档；星号是你自己的这次运行。
# 模型是 `stdlib-gpt`，权重的每个通道一个缩放因子，用舍入后的值以 fp32 计算。

# %% tags=["nbval-ignore-output"]
point = measure.rounded_point(bits, axis=0)
size = point["bytes"] / points.weight_bytes(points.language_model())
here = {
    "bits per byte": point["quality"],
    "size relative to fp32": estimate.Estimate(size, size, size),
    "time relative to fp32": point["time"],
}
sweeps.show_sweep("09", bits, here)

# %% [markdown] tags=["en"]
# ## Recap
#
# - A grid is a scale and perhaps a zero point. Error = step / √12; more scales, smaller steps.
# - Saving 75% against fp32 means quantizing the tables too, where they are large: half of a small
#   encoder is its vocabulary.
# - Dynamic finds the input's range each time; static needs *prepare, run, convert*.
# - Outliers make a range hard to choose. Cutting off 0.1% of each text's values at either end costs
#   most; averaging the texts' extremes, with next to nothing cut, costs nothing; computing the
#   outliers apart stays nearest to fp32. The control, whose range was never adjusted, shows that
#   the experiment can detect a loss.
# - Smaller is not faster. The same engine is fast on one CPU and not on another, and the two CPUs
#   differ in too many ways to say why.
# - Cosine and MRR answer different questions.
#
# **References.** Jacob et al. 2018, *Quantization and Training of Neural Networks for Efficient
# Integer-Arithmetic-Only Inference*. Wu et al. 2020, *Integer Quantization for Deep Learning
# Inference*. Dettmers et al. 2022, *LLM.int8()*. Xiao et al. 2023, *SmoothQuant*.
#
# **Next:** [10 · GPTQ](10_gptq.ipynb): rounding that repairs its own errors, for 4 bits and below.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 网格就是一个缩放因子，也许再加一个零点。误差 = 步长 / √12；缩放因子越多，步长越小。
# - 要比 fp32 小 75%，表很大时就连表也要量化；小型编码器有一半是词表。
# - 动态量化每次现求输入范围；静态量化要走 *prepare、跑数据、convert* 三步。
# - 离群值让范围难以选取。每条文本两端各截掉 0.1% 的值代价最大；只对各条的极值取平均、几乎不截，则没有代价；把离群通道分开计算最接近 fp32。
#   从未调整范围的对照说明，这个实验能分辨出损失。
# - 变小不等于变快。同一个引擎在一块 CPU 上快，在另一块上未必；两块 CPU 差别太多，说不出是哪一点起了作用。
# - 余弦和 MRR 回答的是不同的问题。
#
# **参考文献。** Jacob 等 2018，*Quantization and Training of Neural Networks for Efficient
# Integer-Arithmetic-Only Inference*。Wu 等 2020，*Integer Quantization for Deep Learning
# Inference*。Dettmers 等 2022，*LLM.int8()*。Xiao 等 2023，*SmoothQuant*。
#
# **下一篇：** [10 · GPTQ](10_gptq.ipynb)：边舍入边修正误差，用于 4 比特及以下。
