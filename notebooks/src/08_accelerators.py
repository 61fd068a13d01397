# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 08 · Accelerators
#
# An NPU answers 40 % sooner than a GPU, says the article, and an FPGA can serve inference too. You
# need neither to find out: we move numbers through a grid of multipliers by hand, count its cycles,
# set an NPU against three GPUs by one model for both sides, and end with a matrix unit of our own,
# as real hardware: simulated clock by clock, exact to the bit, and fitted onto chips you can buy.
#
# | | |
# |---|---|
# | **Claims** | `npu-latency`, `fpga-inference` |
# | **Time** | 40 minutes; the cells run in less than a minute |
# | **Afterwards you can** | follow data through a systolic array and say how much of it idles, tell for which shapes an NPU beats a GPU, run one OpenVINO file on whatever a machine has, and read, break and synthesize an int8 unit |

# %% [markdown] tags=["zh"]
# # 08 · 加速器
#
# 文章说 NPU 的延迟比 GPU 低 40%，FPGA 也能承担推理。手边没有这些硬件也能求证：我们先让数字在乘法器网格里一步步流动，
# 数出周期；再用同一套计时公式比较一款 NPU 与三款 GPU；最后自己写一个矩阵单元，它是真正的硬件描述：逐时钟仿真，
# 结果逐比特一致，并综合到买得到的芯片上。
#
# | | |
# |---|---|
# | **论断** | `npu-latency`、`fpga-inference` |
# | **用时** | 40 分钟；全部单元格运行不到一分钟 |
# | **学完之后** | 能跟踪数据流过脉动阵列，并说出有多少单元在空转；能判断 NPU 在哪些形状上胜过 GPU；能让同一个 OpenVINO 文件在机器现有的设备上运行；能读懂、改坏并综合一个 int8 单元 |

# %% tags=["parameters"]
language = "en"
seq_len = 128  # tokens of a text, 1 to 512
unit = 8  # side of the int8 unit that is simulated, 1 to 16
repeats = 11  # of each timing, 3 to 51

# %%
from dataclasses import replace
from itertools import product

from efflab import lab
from efflab.acceleration import fpga, npu, systolic
from efflab.config import PRESETS
from efflab.data import read_published
from efflab.devices import DEVICES
from efflab.lab import check, explore, predict, show, show_source, table
from efflab_rooms import texts
from efflab_rooms.accelerators import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("08_accelerators", exercises.EXERCISES, texts("accelerators"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# The first TPU multiplies in a grid of 256 x 256 cells. One head's scores are a product of 128
# queries with 128 keys, 64 numbers each.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 第一代 TPU 用 256 × 256 个单元的网格做乘法。一个头的注意力分数由 128 个查询与 128 个键相乘得到，每个向量长 64。

# %%
p_used = predict(
    "How many per cent of the multiplications that its cells could do are needed?", "%"
)

# %% [markdown] tags=["en"]
# Our map asks of six products, seven batch sizes, and three GPUs in up to three precisions whether
# that TPU takes at least 40 % less time.

# %% [markdown] tags=["zh"]
# 我们的地图有六种矩阵乘法、七种批大小、三款 GPU（每款至多三种精度）。每一格都问：这块 TPU 能否比 GPU 少用 40% 以上的时间？

# %%
p_share = predict("In how many per cent of the map's cells does it?", "%")

# %%
p_ms = predict(
    "An int8 unit of 8 x 8 cells: MiniLM's products for 128 tokens take how many ms?", "ms"
)

# %% [markdown] tags=["en"]
# ## 2 · Build: a grid that multiplies
#
# A matrix product reads every number many times. A **systolic array** reads it once: each cell
# multiplies, adds, and hands its operand on to its neighbour, one cell a clock (Kung 1982). What
# *stays* in a cell meanwhile is the dataflow. Move the slider: the colours are waves of values that
# run down the diagonal, and a white cell idles.

# %% [markdown] tags=["zh"]
# ## 2 · 实现：会做乘法的网格
#
# 矩阵乘法里每个数都要读很多次。**脉动阵列**只读一次：每个单元相乘、累加，再把操作数递给邻居，每个时钟走一格
# （Kung 1982）。其间哪一种数*驻留*在单元里，就叫哪一种数据流。拖动滑块：颜色是沿对角线推进的一波波数值，白色单元在空转。

# %% tags=["nbval-ignore-output"]
show(figures.animation())

# %% [markdown] tags=["en"]
# **08-1.** Build the left one. Write `one_clock(x, y, total, left, top)`: `x` and `y` hold the value
# of A and of B that each cell has, `total` its sum; `left` (one a row) and `top` (one a column)
# enter now. Return the three after one clock. Values that have not come yet are 0.
#
# <details><summary>Hint</summary>`np.column_stack([left, x[:, :-1]])` moves all of x one cell to
# the right.</details>

# %% [markdown] tags=["zh"]
# **08-1.** 实现左边的那一种。写出 `one_clock(x, y, total, left, top)`：`x`、`y` 是每个单元手里的 A 与 B 的值，
# `total` 是它的和；`left`（每行一个）和 `top`（每列一个）此刻进入。返回一个时钟之后的三者。还没到的值是 0。
#
# <details><summary>提示</summary>`np.column_stack([left, x[:, :-1]])` 让整个 x 右移一格。</details>

# %% tags=["exercise", "ex-08-1"]
answer_1 = ...  # def answer_1(x, y, total, left, top): return x, y, total

# %%
check("08-1", answer_1)

# %% [markdown] tags=["solution", "ex-08-1"]
# <details><summary>Solution</summary>
#
# ```python
# import numpy as np
#
#
# def answer_1(x, y, total, left, top):
#     x = np.column_stack([left, x[:, :-1]])
#     y = np.vstack([top, y[:-1]])
#     return x, y, total + x * y
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ### The cycles, step by step
#
# Let R x C cells compute (m x k)(k x n). Where outputs stay:
#
# 1. A grid holds R x C outputs, so the product takes ⌈m/R⌉ · ⌈n/C⌉ **folds**.
# 2. Each output adds up k products, one a clock: the **stream** is k long.
# 3. Row i and column j start i and j clocks late, so the far corner starts R + C − 2 clocks after
#    the first cell: the **diagonal**.
# 4. A fold takes k + R + C − 2. Where weights or inputs stay, they are first shifted in: R more.
#
# Then the sizes change their places. Where weights stay, k lies over the rows, n over the columns,
# and m streams. Take m = 4, n = 6, k = 5 on 2 x 3 cells, and check a line by hand:

# %% [markdown] tags=["zh"]
# ### 周期数，一步步来
#
# 设 R × C 个单元计算 (m × k)(k × n)。输出驻留时：
#
# 1. 网格一次容纳 R × C 个输出，所以要 ⌈m/R⌉ · ⌈n/C⌉ **折**（fold）。
# 2. 每个输出要加 k 个乘积，每个时钟一个：**流**长为 k。
# 3. 第 i 行、第 j 列各晚 i、j 个时钟开始，最远的角比第一个单元晚 R + C − 2 个时钟：这是**对角线**。
# 4. 一折要 k + R + C − 2 个周期。若驻留的是权重或输入，要先把它们移进来：再加 R。
#
# 换一种数据流，三个尺寸就互换位置。权重驻留时，k 铺在行上，n 铺在列上，m 流过。取 m = 4、n = 6、k = 5，单元 2 × 3，
# 请任选一行手算核对：

# %%
m, n, k, rows, cols = 4, 6, 5, 2, 3
terms = []
for dataflow, name in figures.NAMES.items():
    _, _, stream = systolic.map_sizes(m, n, k, dataflow)
    folds = systolic.folds(m, n, k, rows, cols, dataflow)
    loading = 0 if dataflow == "os" else rows
    diagonal = rows + cols - 2
    cycles = folds * (loading + diagonal + stream) - 1
    assert cycles == systolic.gemm_cycles(m, n, k, rows, cols, dataflow)
    row = {"dataflow": name, "folds": folds, "loading": loading}
    terms.append(row | {"diagonal": diagonal, "stream": stream, "cycles": cycles})
table(terms, kind="computed")

# %%
show_source(systolic.fold_cycles, systolic.gemm_cycles)

# %% [markdown] tags=["en"]
# The −1 is SCALE-Sim's: it gives the number of the last cycle, counted from 0. SCALE-Sim (Samajdar
# et al. 2020) is the simulator that architects use. It writes down which address is read in which
# cycle; our formula has to come to the same. These are 14 of its runs, and the tests hold 108 more:

# %% [markdown] tags=["zh"]
# 末尾的 −1 来自 SCALE-Sim：它给出的是最后一个周期的编号，从 0 数起。SCALE-Sim（Samajdar 等 2020）
# 是体系结构研究常用的模拟器，逐周期写出读了哪个地址；我们的公式必须与它一致。下面是它的 14 次运行，测试里还有 108 次：

# %%
runs = []
for run in read_published("systolic"):
    m, n, k, rows, cols = (run[name] for name in ("m", "n", "k", "rows", "cols"))
    cycles = systolic.gemm_cycles(m, n, k, rows, cols, run["dataflow"])
    runs.append(
        {
            "product": f"({m} x {k}) ({k} x {n})",
            "array": f"{rows} x {cols}",
            "dataflow": figures.NAMES[run["dataflow"]],
            "SCALE-Sim": run["cycles"],
            "formula": cycles,
            "ratio": cycles / run["cycles"],
        }
    )
table(runs, kind="simulated", digits=5)

# %% [markdown] tags=["en"]
# ## 3 · Explore: which array for which Transformer?
#
# Start with a long text and a small array, then make one of them small or large. What does the
# array lose on scores and context, and why not on the FFN? Which dataflow suits short texts? Rows
# and columns differ, too: try 256 x 16 and 16 x 256.

# %% [markdown] tags=["zh"]
# ## 3 · 探索：什么样的 Transformer 配什么样的阵列？
#
# 先选长文本、小阵列，再改短文本或放大阵列。阵列在注意力分数和上下文上损失了什么？为什么在前馈网络上不损失？
# 短文本适合哪种数据流？行与列也不对称：试试 256 × 16 和 16 × 256。

# %%
explore(figures.array_shape, frames=6)

# %%
share = systolic.utilization(m=128, n=128, k=64, rows=256, cols=256, dataflow="ws")
p_used.reveal(100 * share)

# %% [markdown] tags=["en"]
# 1.8 %: the head fills a quarter of the rows and half of the columns, and 128 values stream through
# a grid that needs 766 clocks to load and to cross. A large array wants long streams.
#
# So it is for one head alone, and as SCALE-Sim counts: one fold after the other. The real TPU keeps
# a second tile of weights in its array, which is loaded while the first one computes (Jouppi et al.
# 2017). Then heads in a row take 256 clocks each, those of the loading, and need 1/8 · 128/256 =
# 6.25 % of what the cells could do. TPU v2 to v5 have several arrays of 128 x 128 instead of one of
# 256 x 256; v6e is back at 256 x 256, and has two.
#
# ## 4 · Measure: an NPU against a GPU
#
# "40 % lower latency" needs two sides. One model for both:
#
# **time = overhead + max(multiplying, reading)**
#
# - *Multiplying.* The NPU, TPUv1 below, is a plain array of the first TPU's size: int8, 256 x 256,
#   700 MHz, weights stay; its cycles are the formula's, without the second tile of weights. A GPU
#   cuts the output into tiles, one a multiprocessor, in waves; the last wave is not full. We let it
#   take the best of three tiles.
# - *Reading.* The k · n values of the second operand come from memory. Everything else stays on the
#   chip, on both sides.
# - *Overhead.* The same on both sides; the explorer has a slider for it.
#
# Peaks and bandwidths are those of the datasheets. Both sides are spared what no datasheet says
# (caches, schedulers, software), so read factors, not per cents.

# %% [markdown] tags=["zh"]
# 1.8%：一个头只填满四分之一的行和一半的列，而装载并穿过网格要 766 个时钟，流过的却只有 128 个值。
# 阵列越大，越要靠长数据流才能喂饱。
#
# 这是单独一个头、按 SCALE-Sim 的数法（一折做完再做下一折）得到的。真正的 TPU 在阵列里另存一块权重，
# 前一块还在计算时就装载下一块（Jouppi 等 2017）。于是连续计算多个头时，每个头只要装载所需的 256 个时钟，
# 用到的是 1/8 · 128/256 = 6.25%。TPU v2 到 v5 用几个 128 × 128 的阵列，而不是一个 256 × 256 的；
# v6e 又回到了 256 × 256，有两个。
#
# ## 4 · 度量：NPU 对 GPU
#
# 说“延迟低 40%”，要有比较的双方。双方用同一套公式：
#
# **时间 = 启动开销 + max(乘法，读取)**
#
# - *乘法。* NPU（下文的 TPUv1）取一个与第一代 TPU 同样大小的普通阵列：int8，256 × 256，700 MHz，权重驻留，
#   周期按公式算，不计第二块权重的缓冲。GPU 把输出切成分块（tile），每个流多处理器算一块，一波一波地算，
#   最后一波往往不满。分块大小在三种里取最好的。
# - *读取。* 第二个操作数的 k · n 个值来自片外存储，其余都留在片上，双方相同。
# - *启动开销。* 双方相同；探索器里有一个滑块。
#
# 峰值与带宽取自数据手册。手册上没有的（缓存、调度、软件）双方都不计，所以只看倍数级的差别，不要计较百分之几。

# %%
show_source(npu.npu_seconds, npu.gpu_seconds)

# %% [markdown] tags=["en"]
# Where the time goes for one BERT-base block and one text, in microseconds:

# %% [markdown] tags=["zh"]
# BERT-base 的一层、一条文本，时间花在哪里（微秒）：

# %%
tpu, gpu = npu.TPU_V1, DEVICES["A100 40GB"]
array = replace(tpu, memory_bandwidth=float("inf"))
rows = []
for part in systolic.block_products(PRESETS["bert-base"], seq_len):
    work = 2 * part.macs
    rows.append(
        {
            "product": part.name,
            "TPUv1: at its peak (us)": 1e6 * work / tpu.peak_ops,
            "its array (us)": 1e6 * npu.npu_seconds(part, array),
            "with its memory (us)": 1e6 * npu.npu_seconds(part, tpu),
            "A100 INT8: at its peak (us)": 1e6 * work / gpu.peak("int8"),
            "its tiles and memory (us)": 1e6 * npu.gpu_seconds(part, gpu, "int8"),
        }
    )
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# And the map: the TPU's time over the GPU's. White is equal; blue is where the TPU is faster, and
# 0.6 is the article's 40 %. Change the GPU, then make the NPU as strong as the GPU: the same peak,
# precision and bandwidth in one array. What is left is what the array itself gives.

# %% [markdown] tags=["zh"]
# 再看地图：TPU 的用时除以 GPU 的。白色表示相当，蓝色表示 TPU 更快，0.6 就是文章说的 40%。换一款 GPU；
# 再让 NPU 与 GPU 一样强：峰值、精度、带宽都相同，只是合成一个阵列。剩下的差别就是阵列本身带来的。

# %%
explore(figures.latency_map)

# %%
plain = measure.shares(seq_len)
shares = {
    "TPUv1, no overhead (%)": plain,
    "TPUv1, 10 us a product (%)": measure.shares(seq_len, measure.OVERHEAD),
    "an array as strong as the GPU (%)": measure.shares(seq_len, against=measure.TWIN),
}
rows = [
    {"GPU": gpu} | {way: round(share[gpu], 1) for way, share in shares.items()} for gpu in plain
]
table(rows, kind="computed")
p_share.reveal(round(plain[measure.WHOLE], 1))

# %% [markdown] tags=["en"]
# All cells that reach 40 % have one thing in common: the GPU was left in fp32. There the NPU wins
# by its *precision*, not by being an NPU, and turning on the GPU's own int8 or fp16 units takes it
# back. An array of the same strength reaches them nowhere: loading and crossing, as counted here,
# cost it what the GPU's tiles do not lose.
#
# To be fair to NPUs: this one is from 2015, and lacks its second tile of weights. With it a fold of
# the scores would take 256 clocks instead of 894 and all heads 4.4 µs instead of 15.3; that is still
# 70 times the A100's 0.063 in int8. Against the GPU of its time, the K80, its authors published 15
# to 30 times the performance (Jouppi et al. 2017), again int8 against floating point. And what an
# array really saves is silicon and energy. We leave energy out, because no datasheet gives it for a
# product.
#
# A caution for both: 0.063 µs is less than any GPU takes to start a kernel. Move the overhead, equal
# on both sides, and see how little of such factors is left in a product this small.
#
# ## 5 · Deploy: one file, whatever device there is
#
# On a laptop, the NPU is reached through a runtime. OpenVINO takes MiniLM as one file and compiles
# it for a device by name, "CPU", "GPU" (Intel's graphics) or "NPU". This machine has:

# %% [markdown] tags=["zh"]
# 达到 40% 的格子有一个共同点：GPU 还在用 fp32。NPU 在那里赢在*精度*，而不是赢在它是 NPU；
# GPU 一旦用上自己的 int8 或 fp16 单元，优势就没了。与 GPU 同样强的阵列没有一格达到 40%：按这里的数法，
# 装载和穿越网格要花的时间，GPU 的分块并不需要。
#
# 替 NPU 说句公道话：这是 2015 年的芯片，而且我们没有计入它的第二块权重。计入的话，注意力分数的一折只要 256 个时钟，
# 而不是 894 个，所有的头共 4.4 微秒，而不是 15.3 微秒；仍是 A100 用 int8 时 0.063 微秒的 70 倍。
# 对同时代的 GPU（K80），作者发表的性能之比是 15 到 30（Jouppi 等 2017），同样是 int8 对浮点。
# 而阵列真正省下的是芯片面积和能耗；能耗我们不计，因为没有手册给出一次矩阵乘法的能耗。
#
# 还要提醒一句：0.063 微秒比任何 GPU 启动一个内核的时间都短。拨动双方相同的启动开销，
# 看看在这么小的矩阵乘法上，这样的倍数还剩多少。
#
# ## 5 · 部署：同一个文件，有什么设备用什么
#
# 在笔记本电脑上，NPU 要通过运行时来用。OpenVINO 把 MiniLM 存成一个文件，再按名称为设备编译：
# “CPU”、“GPU”（Intel 核显或独显）、“NPU”。本机有：

# %% tags=["nbval-ignore-output"]
here = measure.device_names()
rows = []
for device in ("CPU", "GPU", "NPU"):
    names = [name for key, name in here.items() if key.split(".")[0] == device]
    rows.append({"device": device, "here": bool(names), "name": "/".join(names) or "-"})
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
table(measure.deployment_rows(seq_len, repeats), kind="measured")

# %% [markdown] tags=["en"]
# Each device that is here has a row, its runs interleaved with torch's, which stands in the run
# twice: "outside the noise" compares with what the two differ by. The line that changes the device
# is `core.compile_model(file, "NPU")`. An NPU's compiler wants fixed shapes, which is why the file
# is reshaped to this one before: another length is another compilation.
#
# ## 6 · Build: an int8 unit as real hardware
#
# An FPGA is a sheet of multipliers, look-up tables and flip-flops whose wiring is a file. What
# follows is not a model of hardware but its description, in Python (Amaranth): the array on the
# left of section 2, with a way to get the sums out. While `drain` is on, the grid is a shift
# register: sums move down a row a clock, leave at the bottom, and zeros come in at the top.

# %% [markdown] tags=["zh"]
# 本机有的每个设备一行，与 torch 交替计时；torch 在同一轮里跑两遍，“超出噪声”是指差别大于这两遍之间的差别。
# 换设备只改一行：`core.compile_model(file, "NPU")`。NPU 的编译器要固定形状，所以文件先改成这一种形状：
# 换个长度就要重新编译。
#
# ## 6 · 实现：一个真正的 int8 硬件单元
#
# FPGA 是一大片乘法器、查找表和触发器，怎么连线由一个文件决定。下面不是硬件的模型，而是硬件的描述，用 Python（Amaranth）写成：
# 就是第 2 节左边的阵列，再加一条把累加和送出来的通路。`drain` 打开时，网格变成移位寄存器：累加和每个时钟下移一行，
# 从底部流出，零从顶部进来。

# %%
show_source(fpga.hardware)

# %% [markdown] tags=["en"]
# Is it right? We give it what MiniLM's first attention is really given for a sentence, and the
# weights of its queries, both in int8: 8 tokens, 384 channels, 8 outputs. A simulator runs the
# hardware clock by clock. Not close: the same whole numbers, to the last bit.

# %% [markdown] tags=["zh"]
# 结果对吗？输入是 MiniLM 第一层注意力处理一句话时真正收到的值，权重是它的查询权重，都量化成 int8：
# 8 个 token，384 个通道，8 个输出。仿真器逐时钟运行这块硬件。不是“接近”，而是整数完全相同，一个比特不差。

# %%
a, b = measure.attention_codes()
sums, _ = fpga.simulate(a[:1], b[:, :4], rows=1, cols=4)
exact = a[:1].astype(int) @ b[:, :4].astype(int)
rows = [{"channel": i, "hardware": sums[0, i], "numpy": exact[0, i]} for i in range(exact.shape[1])]
table(rows, kind="simulated")

# %%
(m, k), n = a.shape, b.shape[1]
rows = []
for side in sorted({2, 4, unit}):
    n_wrong, clocks = measure.simulate_unit(side)
    formula = fpga.cycles(m, n, k, side, side)
    rows.append(
        {
            "unit": f"{side} x {side}",
            "wrong values": n_wrong,
            "clocks, simulated": clocks,
            "clocks, formula": formula,
            "ratio": clocks / formula,
            "SCALE-Sim's model": systolic.gemm_cycles(m, n, k, side, side),
        }
    )
table(rows, kind="simulated", digits=5)

# %% [markdown] tags=["en"]
# The clocks are those of the formula, plus R clocks a tile: we wait until the sums have left, and
# SCALE-Sim lets the next fold begin meanwhile. A second set of registers would do that here too.
#
# The same description as Verilog, which every chip tool reads. One cell:

# %% [markdown] tags=["zh"]
# 时钟数等于公式再加每块 R 个时钟：我们等累加和全部送出才开始下一块，SCALE-Sim 则让下一折同时开始。再加一组寄存器，这里也能做到。
#
# 同一份描述写成 Verilog，任何芯片工具都能读。一个单元：

# %% tags=["nbval-ignore-output"]
print(measure.cell_verilog())

# %% [markdown] tags=["en"]
# Two lines of arithmetic, `$signed(a) * $signed(b)` and the sum; the rest says what is kept. Now the
# question of every FPGA: does it fit? **Synthesis** (Yosys) maps the description onto what a family
# of chips has. Two by two, here and now (the first start on a machine takes about a minute):

# %% [markdown] tags=["zh"]
# 算术只有两行，`$signed(a) * $signed(b)` 和求和，其余说明要保存什么。接下来是每个 FPGA 都要问的问题：放得下吗？
# **综合**（Yosys）把描述映射到一个芯片系列所具有的资源上。2 × 2，此刻在本机（每台机器第一次启动约需一分钟）：

# %% tags=["nbval-ignore-output"]
small = fpga.synthesize(2, 2, family="ecp5")
row = {"family": "ecp5", "unit": "2 x 2", "multipliers (DSP)": small.dsp}
row |= {"tables (LUT)": small.lut, "flip-flops": small.ff}
table([row | {"as recorded": small == measure.resources("ecp5", 2)}], kind="measured")

# %% [markdown] tags=["en"]
# Larger ones take minutes, so they are recorded, by `efflab experiment fpga-synthesis`. The clock is
# from nextpnr, which also placed and wired the unit on the largest chip of that family here:

# %% [markdown] tags=["zh"]
# 更大的要几分钟，所以用存档（`efflab experiment fpga-synthesis`）。时钟频率来自 nextpnr：
# 它还把单元布局布线到表中该系列最大的芯片上：

# %%
rows = []
for family, side in product(fpga.FAMILIES, (2, 4, 8, 16)):
    needs = measure.resources(family, side)
    rows.append(
        {
            "family": family,
            "unit": f"{side} x {side}",
            "multipliers (DSP)": needs.dsp,
            "tables (LUT)": needs.lut,
            "flip-flops": needs.ff,
            "tables a cell": needs.lut / side**2,
            "clock (MHz)": measure.clock_mhz(side, family),
        }
    )
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# A multiplier block for each cell, in both families. The tables differ by much more. Both vendors'
# blocks can add up as well, but Yosys uses that in Xilinx's alone. On the ECP5 it fills the
# multipliers (MULT18X18D) and leaves the adders beside them (ALU54B), so that every sum is made of
# tables: a limit of this tool, not of the chip. The clock falls by a quarter from 2 x 2 to 8 x 8:
# more cells, longer wires. What fits on which chip, by the vendors'
# product tables:

# %% [markdown] tags=["zh"]
# 两个系列都是每个单元一个乘法块，查找表的差别却大得多。两家的 DSP 块都能累加，但 Yosys 只在 Xilinx 上用到；
# 在 ECP5 上它只用乘法器（MULT18X18D），不用旁边的加法器（ALU54B），所以每个累加和都要用查找表搭：
# 这是工具的局限，不是芯片的局限。
# 从 2 × 2 到 8 × 8，时钟频率低了四分之一：单元多了，连线也长了。按厂商的产品表，哪块芯片放得下什么：

# %%
rows = []
for chip in read_published("fpga"):
    needs = measure.resources_on(chip, 8)
    rows.append(
        {
            "chip": chip["device"],
            "DSP": chip["dsp"],
            "LUT": chip["lut"],
            "8 x 8 fits": measure.fits(chip, 8),
            "16 x 16 fits": measure.fits(chip, 16),
            "8 x 8: share of DSP (%)": 100 * needs.dsp / chip["dsp"],
            "share of LUT (%)": 100 * needs.lut / chip["lut"],
        }
    )
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# (The XCVU9P is counted with the figures of its older sister family; it has room to spare.) How long
# does a model take? Clocks over frequency. Choose a clock, a side, and how many units stand side by
# side, each with tiles of its own; the line says which chips hold that many.

# %% [markdown] tags=["zh"]
# （XCVU9P 用的是同厂上一代系列的综合结果，它的余量很大。）跑完一个模型要多久？时钟数除以频率。选时钟频率、边长，
# 以及并排放几个单元（各算各的块）；图中写着哪些芯片放得下这么多。

# %%
explore(figures.serving)

# %%
p_ms.reveal(measure.model_ms(128, side=8, mhz=measure.clock_mhz(8)))

# %% [markdown] tags=["en"]
# ## 7 · Where it breaks
#
# **A wrong sign.** The tests flip one operator of this description at a time, such as `+` into `-`,
# or let a column start with the wrong delay, and expect the comparison above to fail each time. A
# test of hardware that cannot fail would be worth nothing: a chip cannot be patched.
#
# **The feed.** The unit eats 2 · side bytes a clock: 1.6 GB/s for 8 x 8 at 100 MHz. MiniLM's linear
# maps are 10.6 MB in int8, more than these small chips hold, so weights come from outside, again
# for every tile of rows.
#
# **The rest of the model.** Softmax, LayerNorm, GELU and scales are not matrix products. They need
# hardware of their own, or a processor beside it, and their time comes on top of ours.
#
# **The edge.** 9 tokens on 8 rows take two folds, the second with one row in use. Short texts and
# small batches are what latency is about, and what arrays are worst at.

# %% [markdown] tags=["zh"]
# ## 7 · 何时失效
#
# **符号错了。** 测试每次翻转这份描述中的一个运算，比如把 `+` 改成 `-`，或让某一列以错误的延迟开始，并要求上面的比对每次都失败。
# 不可能失败的硬件测试毫无价值：芯片造出来就改不了。
#
# **喂数据。** 单元每个时钟吃掉 2 × 边长个字节：8 × 8 在 100 MHz 下是 1.6 GB/s。MiniLM 的线性层用 int8 存是 10.6 MB，
# 这些小芯片的片上存储装不下，权重要从外面来，而且每一排块都要重来一遍。
#
# **模型的其余部分。** softmax、LayerNorm、GELU 和缩放都不是矩阵乘法，要有自己的硬件，或旁边配一个处理器，时间另计。
#
# **边角。** 9 个 token 放在 8 行上要两折，第二折只用一行。讲究延迟的，正是短文本、小批次，也正是阵列最不擅长的。

# %% [markdown] tags=["en"]
# ## 8 · Verdicts

# %% [markdown] tags=["zh"]
# ## 8 · 结论

# %%
lab.verdict("npu-latency", verdicts.npu_latency(verdicts.npu_evidence(seq_len)))

# %%
lab.verdict("fpga-inference", verdicts.fpga_inference(verdicts.fpga_evidence(unit)))

# %% [markdown] tags=["en"]
# ## 9 · Exercises
#
# **08-2, a target to beat.** A search query has 5 tokens; MiniLM's FFN up is then a product of
# 5 x 384 with 384 x 1536. A 16 x 16 array needs 37,967 cycles at best. Find rows, columns and
# dataflow, with at most 256 cells, that come within 2 % of the fewest possible.
#
# <details><summary>Hint</summary>What has only 5 of something should lie where 5 fill a side. Three
# short loops over `systolic.gemm_cycles` find it.</details>

# %% [markdown] tags=["zh"]
# ## 9 · 练习
#
# **08-2，挑战题。** 一次搜索查询有 5 个 token，MiniLM 前馈网络的第一层就是 5 × 384 乘 384 × 1536。
# 16 × 16 的阵列最好也要 37,967 个周期。在至多 256 个单元里找出行数、列数和数据流，使周期数与可能的最少值相差不到 2%。
#
# <details><summary>提示</summary>只有 5 个的那一维，应铺在 5 就能填满的一边。用 `systolic.gemm_cycles` 写三重循环即可找到。</details>

# %% tags=["exercise", "ex-08-2"]
answer_2 = ...  # (rows, cols, "os", "ws" or "is")

# %%
check("08-2", answer_2)

# %% [markdown] tags=["en", "solution", "ex-08-2"]
# <details><summary>Solution</summary>
#
# ```python
# answer_2 = (48, 5, "is")
# ```
#
# 13,079 cycles: the 5 tokens lie over 5 columns, 48 rows divide 384, and the 1,536 columns of the
# weight stream past in one go. 5 x 50 with outputs in place is second.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-08-2"]
# <details><summary>答案</summary>
#
# ```python
# answer_2 = (48, 5, "is")
# ```
#
# 13,079 个周期：5 个 token 铺在 5 列上，48 行整除 384，权重的 1,536 列一次连续流过。其次是 5 × 50、输出驻留。
#
# </details>

# %% [markdown] tags=["en"]
# **08-3, beat the verdict.** Design an NPU that does reach 40 % against an A100 in int8, in at least
# half of the cells: the side of a square array, its dataflow, and how many `times` the GPU's peak
# and bandwidth it has. Twice is allowed. How low can you go, and what is the limit?
#
# <details><summary>Hint</summary>Small arrays fill soon, and many cells idle in large ones.</details>

# %% [markdown] tags=["zh"]
# **08-3，推翻结论。** 设计一个 NPU，让它与 int8 的 A100 相比，至少一半的格子达到 40%：给出方阵的边长、数据流，
# 以及峰值和带宽是 GPU 的几倍（`times`），至多 2 倍。最低能到几倍？极限在哪里？
#
# <details><summary>提示</summary>小阵列很快填满，大阵列里许多单元在空转。</details>

# %% tags=["exercise", "ex-08-3"]
answer_3 = ...  # (side, "os", "ws" or "is", times)

# %%
check("08-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-08-3"]
# <details><summary>Solution</summary>
#
# ```python
# answer_3 = (8, "os", 1.7)
# ```
#
# No design gets below 1 / 0.6 = 1.67 where the GPU idles nowhere. An array of 8 x 8 comes next to
# it, but it would have to run at an impossible clock: real designs put hundreds of small arrays side
# by side, and then they look like a GPU.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-08-3"]
# <details><summary>答案</summary>
#
# ```python
# answer_3 = (8, "os", 1.7)
# ```
#
# 只要 GPU 没有空转，任何设计都低不过 1 / 0.6 = 1.67 倍。8 × 8 的阵列很接近，但时钟频率高得不可能：
# 真实的设计会把几百个小阵列并排放，那就很像 GPU 了。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - A systolic array reads each number once and hands it on. Cycles = folds · (load + diagonal +
#   stream): exactly SCALE-Sim's.
# - Large arrays want long streams. One head of 64 alone on 256 x 256 cells uses 1.8 % of them; with
#   its loading hidden behind the head before, 6.25 %.
# - The 40 % are there in about half of the cells where a V100 or an A100 computes in fp32 and the NPU
#   in int8, nowhere else; at equal precision and strength, as counted here, they are not.
# - One OpenVINO file runs on CPU, GPU or NPU; `available_devices` says what a machine has.
# - An int8 unit is fifty lines of hardware. It is exact, takes a multiplier a cell, and 8 x 8 cells
#   fit on small chips; how long a text it serves in time is a matter of clocks.
#
# **References.** Kung 1982, *Why Systolic Architectures?* Jouppi et al. 2017, *In-Datacenter
# Performance Analysis of a Tensor Processing Unit*. Samajdar et al. 2020, *A Systematic Methodology
# for Characterizing Scalability of DNN Accelerators using SCALE-Sim*. Wolf et al., *Yosys*. Shah et
# al. 2019, *Yosys+nextpnr*. The Amaranth project. Google Cloud's documentation of the TPUs.
#
# **Next:** [09 · Quantization](09_quantization.ipynb): where the int8 numbers come from, and
# what they cost.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 脉动阵列把每个数读一次，再逐格传递。周期 = 折数 ·（装载 + 对角线 + 流），与 SCALE-Sim 完全一致。
# - 阵列越大，越要靠长数据流才能喂饱。256 × 256 个单元上，长 64 的一个头单独计算只用到 1.8%；
#   若装载与前一个头的计算重叠，则是 6.25%。
# - 只有 V100 或 A100 用 fp32 而 NPU 用 int8 时，约一半的格子达到 40%，别处没有；精度和强度都相同时，按这里的数法，没有一格达到。
# - 一个 OpenVINO 文件可以跑在 CPU、GPU 或 NPU 上；`available_devices` 列出机器有什么。
# - 一个 int8 单元只是五十行硬件描述。它精确，每个单元一个乘法器，8 × 8 放得进小芯片；
#   能及时处理多长的文本，取决于时钟。
#
# **参考文献。** Kung 1982，*Why Systolic Architectures?* Jouppi 等 2017，*In-Datacenter
# Performance Analysis of a Tensor Processing Unit*。Samajdar 等 2020，*A Systematic Methodology
# for Characterizing Scalability of DNN Accelerators using SCALE-Sim*。Wolf 等，*Yosys*。Shah 等 2019，
# *Yosys+nextpnr*。Amaranth 项目。Google Cloud 的 TPU 文档。
#
# **下一篇：** [09 · 量化](09_quantization.ipynb)：int8 的数从哪里来，代价是什么。
