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
# An NPU has 40 % lower latency than a GPU, says the article, and an FPGA can serve inference too.
# You need neither to find out. We move numbers through a grid of multipliers step by step and count
# its cycles, then compare an NPU with three GPUs by one model for both sides. We end with a matrix
# unit of our own, as real hardware: simulated clock by clock, exact to the bit, and fitted onto
# chips you can buy.
#
# | | |
# |---|---|
# | **Claims** | `npu-latency`, `fpga-inference` |
# | **Time** | 40 minutes; the cells run in about a minute, the first time in about two |
# | **Afterwards you can** | follow data through a systolic array and say how much of it idles, tell for which shapes an NPU beats a GPU, run one OpenVINO file on whatever devices a machine has, and read, break and synthesize an int8 unit |

# %% [markdown] tags=["zh"]
# # 08 · 加速器
#
# 文章说 NPU 的延迟比 GPU 低 40%，FPGA 也能承担推理。手边没有这些硬件也能求证：我们先让数字在乘法器网格里一步步流动，
# 数出周期；再用同一套计时公式比较一款 NPU 与三款 GPU；最后自己写一个矩阵单元，它是真正的硬件描述：逐时钟模拟，
# 结果逐比特一致，并综合到买得到的芯片上。
#
# | | |
# |---|---|
# | **论断** | `npu-latency`、`fpga-inference` |
# | **用时** | 40 分钟；全部单元格运行约一分钟，第一次约两分钟 |
# | **学完之后** | 能跟踪数据在脉动阵列里怎样流动，并说出有多少单元在空转；能判断 NPU 在哪些形状上胜过 GPU；能让同一个 OpenVINO 文件在机器现有的设备上运行；能读懂、改坏并综合一个 int8 单元 |

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
# The first TPU multiplies in a grid of 256 x 256 cells. One head's attention scores are a product
# of 128 queries with 128 keys, each a vector of 64 numbers. Many heads are computed one after
# another.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 第一代 TPU 用 256 × 256 个单元的网格做乘法。一个头的注意力分数由 128 个查询与 128 个键相乘得到，每个向量长 64；
# 许多个头依次计算。

# %%
p_used = predict("What percentage of the multiplications the grid could do is useful work?", "%")

# %% [markdown] tags=["en"]
# 40 % lower latency means 0.6 of the time. Take a whole BERT-base block and eight texts of 128
# tokens.

# %% [markdown] tags=["zh"]
# 延迟低 40%，就是用时为 0.6 倍。取 BERT-base 的一整层，八条文本，每条 128 个 token。

# %%
p_ratio = predict("What is the ratio of the first TPU's time to an A100's, both in int8?", "x")

# %% [markdown] tags=["en"]
# Six FPGAs, with 28 to 6,840 multipliers, are filled with int8 units of 4 x 4 cells.

# %% [markdown] tags=["zh"]
# 六款 FPGA 各有 28 至 6,840 个乘法器，都放满 4 × 4 的 int8 矩阵单元。

# %%
p_chips = predict("How many of the six run MiniLM's matrix products for 128 tokens within 100 ms?")

# %% [markdown] tags=["en"]
# ## 2 · Build: a grid that multiplies
#
# A matrix product reads every number many times. A **systolic array** reads it once for a whole row
# or column of cells: each cell multiplies, adds, and hands its operand on to its neighbour, one
# cell per clock (Kung 1982). A dataflow is named after what *stays* in a cell meanwhile. Move the
# slider: the colours are waves of values that run along the diagonal, and white cells are idle.

# %% [markdown] tags=["zh"]
# ## 2 · 实现：会做乘法的网格
#
# 矩阵乘法里每个数都要读很多次。**脉动阵列**读一次，就供一整行或一整列单元使用：每个单元相乘、累加，再把操作数递给邻居，每个时钟走一格
# （Kung 1982）。其间*驻留*在单元里的是哪一种数，数据流就以它命名。拖动滑块：颜色是沿对角线推进的一波波数值，白色单元在空转。

# %% tags=["nbval-ignore-output"]
show(figures.animation())

# %% [markdown] tags=["en"]
# **08-1.** Build the grid on the left. Write `one_clock(x, y, total, left, top)` (as `answer_1`):
# `x` and `y` hold the values of A and of B that each cell has, and `total` its sum; `left` (one
# value per row) and `top` (one per column) enter now. Return the three after one clock. Values that
# have not arrived yet are 0.
#
# <details><summary>Hint</summary><code>np.column_stack([left, x[:, :-1]])</code> moves all of x one cell to
# the right.</details>

# %% [markdown] tags=["zh"]
# **08-1.** 实现左边的那一种。写出 `one_clock(x, y, total, left, top)`（赋给 `answer_1`）：`x`、`y` 是每个单元当前的 A 值与 B 值，
# `total` 是它的累加和；`left`（每行一个）和 `top`（每列一个）此刻进入。返回一个时钟之后的三者。还没到的值是 0。
#
# <details><summary>提示</summary><code>np.column_stack([left, x[:, :-1]])</code> 让整个 x 右移一格。</details>

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
# Let R x C cells compute (m x k)(k x n). If outputs stay:
#
# 1. A grid holds R x C outputs, so the product takes ⌈m/R⌉ · ⌈n/C⌉ **folds**.
# 2. Each output adds up k products, one per clock: the **stream** has length k.
# 3. Row i and column j start i and j clocks late, so the far corner starts R + C − 2 clocks after
#    the first cell: the **diagonal**.
# 4. A fold takes k + R + C − 2 cycles. If weights or inputs stay, they are shifted in first: R
#    more.
#
# In the other dataflows, the sizes swap roles. If weights stay, k lies over the rows, n over the
# columns, and m streams. Take m = 4, n = 6, k = 5 on 2 x 3 cells, and check one row of the table by
# hand (it counts cycles from 0, as SCALE-Sim does, so it shows one less):

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
# 换一种数据流，三个尺寸就互换位置。权重驻留时，k 铺在行上，n 铺在列上，m 流过。取 m = 4、n = 6、k = 5，用 2 × 3 个单元，
# 请任选一行手算核对（表中的周期像 SCALE-Sim 那样从 0 数起，少 1）：

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
# The −1 comes from SCALE-Sim, which gives the number of the last cycle, counted from 0. SCALE-Sim
# (Samajdar et al. 2020) is the simulator that computer architects use. It writes down which address
# is read in which cycle, and our formula has to agree with it. The table shows 14 of its runs
# (version 2); the tests hold 108 more (version 3). If outputs stay, the formula in SCALE-Sim's
# paper has R more cycles per fold, in which the outputs leave; the program does not count these.

# %% [markdown] tags=["zh"]
# 末尾的 −1 来自 SCALE-Sim：它给出的是最后一个周期的编号，从 0 数起。SCALE-Sim（Samajdar 等 2020）
# 是体系结构研究常用的模拟器，逐周期写出读了哪个地址；我们的公式必须与它一致。下面是它的 14 次运行（第 2 版），测试里还有 108 次（第 3 版）。
# 输出驻留时，论文自己的公式每折还多 R 个周期，用来送出结果；程序没有计入。

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
# ### A second register hides the loading
#
# SCALE-Sim runs one fold after the other. The first TPU does not: each cell has a
# second register, into which the next tile of weights is shifted while the one in use multiplies
# (Jouppi et al. 2017). The figure shows three tiles of weights, A, B and C, each with a stream of
# its own. The weight in use is bold; below it waits the next one. Switch to one register: the
# loading no longer hides behind the previous tile's crossing of the grid. Then shorten the stream
# to 2: why does the array idle even with two registers?

# %% [markdown] tags=["zh"]
# ### 第二个寄存器：把装载藏起来
#
# SCALE-Sim 一折算完再算下一折，第一代 TPU 却不是：每个单元还有第二个寄存器，正在用的权重做乘法时，
# 下一块权重就移进来（Jouppi 等 2017）。下面有 A、B、C 三块权重，各有一段自己的流；粗体的正在使用，
# 下面的在等待。换成一个寄存器：装载就不再藏在前一块穿越网格的时间里。再把流长改成 2：有了两个寄存器，为什么还会空转？

# %% tags=["nbval-ignore-output"]
explore(figures.second_register, frames=13)

# %% [markdown] tags=["en"]
# Each fold now starts max(stream, R) cycles after the one before: a long stream sets the pace,
# otherwise the loading does, which takes R. What is left of loading and diagonal is paid once, not
# once per fold.

# %% [markdown] tags=["zh"]
# 于是每一折比前一折晚 max(流长, R) 个周期开始：流够长就由它决定，否则由装载的 R 个周期决定。
# 装载和对角线余下的部分只付一次，不再每折都付。

# %%
show_source(systolic.overlapped_cycles)

# %% [markdown] tags=["en"]
# ## 3 · Explore: which array for which Transformer?
#
# Start with a long text and a small array, then shorten the text or enlarge the array. What does
# the array lose on scores and context, and why not on the FFN? Which dataflow suits short texts?
# Rows and columns are not interchangeable either: try 256 x 16 and 16 x 256. Then give each cell a
# second register.

# %% [markdown] tags=["zh"]
# ## 3 · 探索：什么样的 Transformer 配什么样的阵列？
#
# 先选长文本、小阵列，再把文本改短，或把阵列放大。阵列在注意力分数和上下文上损失了什么？为什么在前馈网络上不损失？
# 短文本适合哪种数据流？行与列也不对称：试试 256 × 16 和 16 × 256。最后给每个单元加上第二个寄存器。

# %%
explore(figures.array_shape, frames=6)

# %%
head = systolic.Product("scores", m=128, n=128, k=64)
rows = []
for count, registers in ((1, 1), (12, 1), (12, 2), (1200, 2)):
    heads = replace(head, count=count)
    cycles = heads.cycles(256, 256, "ws", registers == 2) + 1
    used = 100 * heads.macs / (cycles * 256 * 256)
    row = {"heads in a row": count, "registers": registers}
    rows.append(row | {"cycles per head": cycles / count, "utilization (%)": used})
table(rows, kind="computed")
p_used.reveal(rows[-1]["utilization (%)"])

# %% [markdown] tags=["en"]
# One head alone uses 1.8 % of the array: it fills a quarter of the rows and half of the columns,
# and only 128 values stream through a grid that needs 766 clocks to load and to cross. With the
# second register, heads in a row take 256 clocks each, the time of the loading, and use
# 1/8 · 128/256 = 6.25 %: short streams still starve a large array. TPU v2 to v5 have several arrays
# of 128 x 128 instead of one of 256 x 256; v6e is back at 256 x 256, and has two.
#
# ## 4 · Measure: an NPU against a GPU
#
# "40 % lower latency" needs two sides to compare. We use one model for both:
#
# **time = max(launch, multiplying, reading)**
#
# - *Multiplying.* The NPU, called TPUv1 below, is the first TPU's array: int8, 256 x 256, 700 MHz,
#   weights stay, with its second register. A GPU cuts the output into tiles and computes them in
#   waves, one tile per multiprocessor; the last wave is often not full. We give it the best of
#   three tile sizes.
# - *Reading.* The k · n values of the second operand come from off-chip memory. Everything else
#   stays on the chip, on both sides.
# - *Launch.* Launches queue up while earlier work runs, so a product takes at least the time from
#   one small kernel to the next, the memory's latency included: 7.1 µs, as recorded on an H100
#   (this is notebook 07's model). It is the same on both sides.
#
# Peaks and bandwidths come from the datasheets. Caches and schedulers are left out on both sides,
# so read differences of whole factors, not of a few per cent.

# %% [markdown] tags=["zh"]
# 单独一个头只用到 1.8%：它只填满四分之一的行和一半的列，而装载并穿过网格要 766 个时钟，流过的却只有 128 个值。
# 有了第二个寄存器，连续计算时每个头只要装载所需的 256 个时钟，用到 1/8 · 128/256 = 6.25%：
# 流太短，大阵列还是喂不饱。TPU v2 到 v5 用几个 128 × 128 的阵列，而不是一个 256 × 256 的；
# v6e 又回到了 256 × 256，有两个。
#
# ## 4 · 度量：NPU 对 GPU
#
# 说“延迟低 40%”，要有比较的双方。双方用同一套公式：
#
# **时间 = max(启动，乘法，读取)**
#
# - *乘法。* NPU（下文的 TPUv1）就是第一代 TPU 的阵列：int8，256 × 256，700 MHz，权重驻留，带第二个寄存器。
#   GPU 把输出切成分块（tile），每个流多处理器算一块，一波一波地算，最后一波往往不满。分块大小在三种里取最好的。
# - *读取。* 第二个操作数的 k · n 个值来自片外存储，其余都留在片上，双方相同。
# - *启动。* 前面的工作在执行时，后面的内核已在排队启动；所以一次矩阵乘法的用时，不会短于从一个小内核到下一个小内核的间隔
#   （含存储延迟）：取 H100 上的存档值 7.1 微秒（即第 07 篇的模型），双方相同。
#
# 峰值与带宽取自数据手册。缓存和调度双方都不计，所以只看倍数级的差别，不要计较百分之几。

# %%
show_source(npu.npu_seconds, npu.gpu_seconds)

# %% [markdown] tags=["en"]
# How far is the GPU's side of the model from a real GPU? Square products, recorded on an H100, one
# call at a time:

# %% [markdown] tags=["zh"]
# GPU 这一半离真实有多远？下面是在 H100 上存档的方阵乘法，每次只调用一个：

# %%
table(measure.model_check_rows(), kind="computed")

# %% [markdown] tags=["en"]
# The model's GPU is too fast. For large products it takes 0.70 to 0.77 of the recorded time,
# because a real GPU does not reach its peak; for small ones 0.26 to 0.43, because a lone call also
# waits for its own end. Against a real GPU, the NPU would look better by these factors, if it does
# what the model says, which no recording here shows.
#
# Where the time goes for one BERT-base block and one text, in microseconds, without launches:

# %% [markdown] tags=["zh"]
# 模型里的 GPU 偏快：大矩阵的用时是存档时间的 0.70 至 0.77 倍，因为真实的 GPU 达不到峰值；小矩阵是 0.26 至 0.43 倍，
# 因为单独调用一次还要等它自己结束。与真实的 GPU 相比，NPU 会按这些倍数显得好一些，前提是它真能做到模型所算的，而这一点这里没有实测可以证明。
#
# BERT-base 的一层、一条文本，时间花在哪里（微秒，不计启动开销）：

# %%
tpu, gpu = npu.TPU_V1, DEVICES["A100 40GB"]
array = replace(tpu, memory_bandwidth=float("inf"))
plain = replace(array, overlap=False)
rows = []
for part in systolic.block_products(PRESETS["bert-base"], seq_len):
    work = 2 * part.macs
    rows.append(
        {
            "product": part.name,
            "TPUv1 at peak (µs)": 1e6 * work / tpu.peak_ops,
            "one register (µs)": 1e6 * npu.npu_seconds(part, plain),
            "two registers (µs)": 1e6 * npu.npu_seconds(part, array),
            "two registers and memory (µs)": 1e6 * npu.npu_seconds(part, tpu),
            "A100 INT8 at peak (µs)": 1e6 * work / gpu.peak("int8"),
            "A100 tiles and memory (µs)": 1e6 * npu.gpu_seconds(part, gpu, "int8"),
        }
    )
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# The map below shows the TPU's time over the GPU's, with launches. White means equal, blue means
# that the TPU is faster, and 0.6 is the article's 40 %. What a user waits for is the last row, the
# whole block. Change the GPU, then make the NPU as strong as the GPU: the same peak, precision and
# bandwidth in one array. Any difference that remains comes from the array itself. Then try it
# without launches, or with one register.

# %% [markdown] tags=["zh"]
# 再看热力图：TPU 的用时除以 GPU 的用时，含启动开销。白色表示相当，蓝色表示 TPU 更快，0.6 就是文章说的 40%。
# 用户等待的是最后一行：一整层。换一款 GPU；再让 NPU 与 GPU 一样强：峰值、精度、带宽都相同，只是合成一个阵列，
# 剩下的差别就是阵列本身带来的。也可以去掉启动开销，或去掉一个寄存器。

# %%
explore(figures.latency_map)

# %%
table(measure.block_rows(measure.TPU, seq_len, (1, 2, 4, 8, 64)), kind="simulated")
array = measure.rival(measure.TPU, "A100 40GB", "int8")
whole = measure.ratios(array, "A100 40GB", "int8", 128, measure.launch_seconds())[-1]
p_ratio.reveal(whole[measure.BATCHES.index(8)])

# %%
table(measure.block_rows(measure.TWIN, seq_len, (1, 2, 4, 8, 64)), kind="simulated")

# %% [markdown] tags=["en"]
# With texts of 128 tokens, the first TPU reaches 0.6 only against a V100 or an A100 left in fp32,
# from a batch of 4 on (with 512 tokens, from one text on). There it wins by its *precision*, not by
# being an NPU. Turning on the GPU's own fp16 or int8 units cancels the advantage, even if the GPU's
# large products take longer by the recorded factor. With one text, the first TPU waits for 7 MB of
# weights at 34 GB/s, whatever the array does.
#
# An array as strong as the GPU is level with it on the four linear products taken together: 0.92 to
# 1.02 of its time from a batch of 2 on, without launches. It loses the block on the heads, where it
# takes 7 to 16 times as long: the 6.25 % from above.
#
# Launches matter too: six of them take 43 µs, while the work itself, a block of one text, takes an
# A100 in int8 less than 5. If only the GPU paid for them, the equal array would need under a fifth
# of its time. That is why an NPU that runs a whole model as one program is fast at small batches. A
# GPU gets the same from CUDA graphs, or from fused kernels (see notebook 07).
#
# To be fair to NPUs, this one is from 2015. Against the K80, the GPU of its time, its authors'
# Table 6 works out to 13 times (geometric mean) or 15 times (weighted by use) the inference
# performance (Jouppi et al. 2017; the 29 that is often quoted is against a CPU). That is int8
# against floating point, within a response-time limit. For a more recent one, the TPU v4, its
# makers published these results against as many A100s (Jouppi et al. 2023):

# %% [markdown] tags=["zh"]
# 每条文本 128 个 token 时，只有 V100 或 A100 还用 fp32，批大小从 4 起，第一代 TPU 才达到 0.6（512 个 token 时一条文本就够）。它赢在*精度*，而不是赢在它是 NPU；
# GPU 一旦用上自己的 fp16 或 int8 单元，优势就没了；即使 GPU 在大矩阵上如存档那样更慢，也是如此。
# 只有一条文本时，要等 7 MB 权重以 34 GB/s 读进来，与阵列无关。
#
# 与 GPU 同样强的阵列，在四种线性层的矩阵乘法上合计与 GPU 相当：批大小从 2 起，不计启动开销，用时为 0.92 至 1.02 倍。
# 它输在各个头上：用时是 GPU 的 7 至 16 倍，原因就是上面的 6.25%。
#
# 再说启动：六次要 43 微秒，而 A100 用 int8 计算一条文本的一层，本身不到 5 微秒。若只有 GPU 付这笔开销，
# 同样强的阵列用时不到它的五分之一：把整个模型编译成一个程序的 NPU，在小批次上之所以快，原因在此。
# GPU 用 CUDA Graph 或融合内核（见第 07 篇）也能做到。
#
# 替 NPU 说句公道话：这是 2015 年的芯片。与同时代的 GPU（K80）相比，按作者论文的表 6 推算，推理性能是它的
# 13 倍（几何平均）或 15 倍（按使用量加权）（Jouppi 等 2017；常被引用的 29 倍是对 CPU 而言）；这是 int8 对浮点，并有响应时间限制。
# 较新的 TPU v4 与同样数量的 A100 相比，Google 发表的结果如下（Jouppi 等 2023）：

# %%
rows = []
for row in read_published("tpu_v4"):
    time, power = 1 / row["speed_over_a100"], row["tpu_watts"] / row["a100_watts"]
    ratios = {"time / A100": time, "power / A100": power, "energy / A100": time * power}
    rows.append({"training": row["model"]} | ratios)
table(rows, kind="published")

# %% [markdown] tags=["en"]
# That is training. Only the convolutional network reaches 0.6 of the time; in energy, both networks
# do. The energy is our product of the two published ratios, which may come from systems of
# different sizes, and it compares whole chips, not arrays alone. Our model leaves energy out,
# because no datasheet gives it for a product.
#
# ## 5 · Deploy: one file, whatever device there is
#
# On a laptop, programs reach the NPU through a runtime. OpenVINO takes MiniLM as one file and
# compiles it for a device chosen by name: "CPU", "GPU" (Intel's graphics) or "NPU". This machine
# has:

# %% [markdown] tags=["zh"]
# 这是训练的数据，而且用时降到 0.6 倍的只有卷积网络；能耗则两者都低于 0.6 倍。能耗是我们用两个比值相乘得到的，二者可能来自规模不同的系统；
# 比较的也是整个芯片，而不只是阵列。
# 我们的模型不计能耗，因为没有手册给出一次矩阵乘法的能耗。
#
# ## 5 · 部署：同一个文件，有什么设备用什么
#
# 在笔记本电脑上，NPU 要通过运行时（runtime）来使用。OpenVINO 把 MiniLM 存成一个文件，再按名称为设备编译：
# “CPU”、“GPU”（Intel 核显或独显）、“NPU”。本机有：

# %% tags=["nbval-ignore-output"]
here = measure.device_names()
rows = []
for device in ("CPU", "GPU", "NPU"):
    names = [name for key, name in here.items() if key.split(".")[0] == device]
    rows.append({"device": device, "available": bool(names), "name": "/".join(names) or "-"})
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
table(measure.deployment_rows(seq_len, repeats), kind="measured")

# %% [markdown] tags=["en"]
# Each device of this machine has a row, timed interleaved with torch. torch itself is timed twice,
# and *outside the noise* means a difference larger than that between its two timings. Only one line
# changes with the device: `core.compile_model(file, "NPU")`. An NPU's compiler wants fixed shapes,
# so the model is first reshaped to this one; another length needs another compilation. The CPU
# computes in fp32, as torch does; GPU and NPU choose their own precision, usually fp16, so part of
# their gain may be precision.
#
# ## 6 · Build: an int8 unit as real hardware
#
# An FPGA is a sheet of multipliers, look-up tables and flip-flops whose wiring is set by a file.
# What follows is not a model of hardware but a description of it, in Python (Amaranth): the array
# on the left of section 2, with a way to get the sums out. While `drain` is on, the grid is a shift
# register: sums move down one row per clock and leave at the bottom, and zeros come in at the top.

# %% [markdown] tags=["zh"]
# 本机有的每个设备一行，与 torch 交替计时；torch 在同一轮里跑两遍，“超出噪声”是指差别大于这两遍之间的差别。
# 换设备只改一行：`core.compile_model(file, "NPU")`。NPU 的编译器要固定形状，所以文件先改成这一种形状：
# 换个长度就要重新编译。CPU 与 torch 一样用 fp32；GPU 和 NPU 由运行时自选精度，通常是 fp16，所以快出来的一部分可能来自精度。
#
# ## 6 · 实现：一个真正的 int8 硬件单元
#
# FPGA 是一大片乘法器、查找表和触发器，怎么连线由一个文件决定。下面不是硬件的模型，而是硬件的描述，用 Python（Amaranth）写成：
# 就是第 2 节左边的阵列，再加一条把累加和送出来的通路。`drain` 打开时，网格变成移位寄存器：累加和每个时钟下移一行，
# 从底部流出，零从顶部进来。

# %%
show_source(fpga.hardware)

# %% [markdown] tags=["en"]
# Is it right? We feed it the actual input of MiniLM's first attention for a sentence, and the
# weights of that attention's queries, both in int8: 8 tokens, 384 channels, 8 outputs. A simulator
# runs the hardware clock by clock. The results are not just close: they are the same integers, to
# the last bit.

# %% [markdown] tags=["zh"]
# 结果对吗？输入是 MiniLM 第一层注意力处理一句话时真正收到的值，权重是它的查询权重，都量化成 int8：
# 8 个 token，384 个通道，8 个输出。模拟器逐时钟运行这块硬件。不是“接近”，而是整数完全相同，一个比特不差。

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
# The clocks equal column *SCALE-Sim's model*, plus the 1 that it leaves out, plus R per tile, as in
# the formula of SCALE-Sim's paper. We wait until the sums have left; SCALE-Sim's program lets the
# next fold begin meanwhile. A second set of registers would allow that here too.
#
# Here is the same description as Verilog, which every chip tool reads. One cell:

# %% [markdown] tags=["zh"]
# 时钟数等于“SCALE-Sim 的模型”一列的周期数（补上它少算的 1 个），再加每块 R 个，与其论文的公式相同：
# 我们等累加和全部送出才开始下一块，SCALE-Sim 的程序则让下一折同时开始。再加一组寄存器，这里也能做到。
#
# 同一份描述写成 Verilog，任何芯片工具都能读。网格里的一格：

# %% tags=["nbval-ignore-output"]
print(measure.cell_verilog())

# %% [markdown] tags=["en"]
# Two lines are arithmetic, `$signed(a) * $signed(b)` and the sum; the rest says what is stored. Now
# the question for every FPGA: does it fit? **Synthesis** (Yosys) maps the description onto the
# resources of a chip family. We synthesize a two-by-two unit here and now (the first start on a
# machine takes about a minute):

# %% [markdown] tags=["zh"]
# 算术只有两行，`$signed(a) * $signed(b)` 和求和，其余说明要保存什么。接下来是每个 FPGA 都要问的问题：放得下吗？
# **综合**（Yosys）把描述映射到一个芯片系列所具有的资源上。下面就在本机当场综合一个 2 × 2 的单元（每台机器第一次启动约需一分钟）：

# %% tags=["nbval-ignore-output"]
small = fpga.synthesize(2, 2, family="ecp5")
row = {"family": "ecp5", "unit": "2 x 2", "multipliers (DSP)": small.dsp}
row |= {"look-up tables (LUT)": small.lut, "flip-flops": small.ff}
table([row | {"as recorded": small == measure.resources("ecp5", 2)}], kind="measured")

# %% [markdown] tags=["en"]
# Larger units take minutes, so they are recorded, by `efflab experiment fpga-synthesis`. The clock
# comes from nextpnr, which also placed and routed the ECP5 units that fit on the largest ECP5 chip
# in our tables (speed grade 6, target 100 MHz, without connecting pins, because the bare unit has more
# ports than the chip has pins):

# %% [markdown] tags=["zh"]
# 更大的要几分钟，所以用存档（`efflab experiment fpga-synthesis`）。时钟频率来自 nextpnr：
# 它还把放得下的 ECP5 单元布局布线到表中该系列最大的芯片上（速度等级 6，目标 100 MHz，不接引脚：单元的端口比芯片的引脚还多）：

# %%
rows = []
for family, side in product(fpga.FAMILIES, (2, 4, 8, 16)):
    needs = measure.resources(family, side)
    rows.append(
        {
            "family": family,
            "unit": f"{side} x {side}",
            "multipliers (DSP)": needs.dsp,
            "look-up tables (LUT)": needs.lut,
            "flip-flops": needs.ff,
            "LUTs per cell": needs.lut / side**2,
            "clock (MHz)": measure.clock_mhz(side, family),
        }
    )
table(rows, kind="recorded")

# %% [markdown] tags=["en"]
# Both families use one multiplier block per cell, but they differ widely in look-up tables. Both
# vendors' blocks can also add up, but Yosys uses that only for Xilinx. On the ECP5 it uses the
# multipliers (MULT18X18D) and leaves the adders beside them (ALU54B) idle, so every sum is made of
# look-up tables: a limit of this tool, not of the chip. The clock falls by a quarter from 2 x 2 to
# 8 x 8, probably because wires get longer; the record does not name the slowest path.
#
# Each of these units had the chip to itself, and the router all the room. What happens to the clock
# when the chip is full? 12 x 12 cells take 144 of the LFE5U-85F's 156 multipliers. "Full" refers to
# the multipliers only: of the chip's 84,000 look-up tables about a tenth is in use, so a chip
# crowded with logic as well may be slower. The rule of the verdict was registered before this unit
# was routed (`efflab experiment fpga-synthesis-2`). We ran three seeds of the placement, which
# take 8 to 22 minutes each:

# %% [markdown] tags=["zh"]
# 两个系列都是每格用一个 DSP 块，查找表的差别却大得多。两家的 DSP 块都能累加，但 Yosys 只在 Xilinx 上用到；
# 在 ECP5 上它只用乘法器（MULT18X18D），不用旁边的加法器（ALU54B），所以每个累加和都要用查找表搭：
# 这是工具的局限，不是芯片的局限。
# 从 2 × 2 到 8 × 8，时钟频率低了四分之一，可能因为连线变长；存档没有记录最慢的路径。
#
# 以上每个单元都独占一块芯片，布线有的是余地。芯片放满了，时钟会怎样？12 × 12 格用掉 LFE5U-85F 的 156 个乘法器中的
# 144 个。这里的“放满”只指乘法器：84,000 个查找表大约只用了十分之一，逻辑也挤满的芯片可能更慢。结论的规则在布线之前就已登记（`efflab experiment fpga-synthesis-2`），布局取三个种子，每次 8 至 22 分钟：

# %%
show(figures.clocks())

# %% [markdown] tags=["en"]
# The full chip runs at 63.2 to 66.4 MHz, with the median 29 % below a single 4 x 4. All of that may
# be the price of a larger grid: extrapolated to 12, the points of 4 x 4 and 8 x 8 give 60 MHz if
# the clock falls linearly with the side, 66 along a straight line in this figure (logarithmic
# axis), and 67 as a power law. So these runs cannot tell a full chip from a large grid; and 8 x 8
# was placed only once.
#
# Now fill every chip with as many units as its multipliers, look-up tables and flip-flops allow (by
# the vendors' product tables). The units share the tiles of each product, and the table shows both
# clocks:

# %% [markdown] tags=["zh"]
# 放满的芯片跑 63.2 至 66.4 MHz，中位数比只放一个 4 × 4 低 29%。这可能全是网格变大的代价：
# 由 4 × 4 与 8 × 8 两点外推到 12，时钟若随边长均匀下降，是 60 MHz；按图中的直线（横轴为对数）是 66，按幂律是 67。
# 所以这些结果分不开“芯片放满”与“网格变大”；况且 8 × 8 只布局布线了一次。
#
# 现在把每款芯片都放满：按厂商的产品表，乘法器、查找表和触发器允许放几个就放几个，
# 每个矩阵乘法的分块由它们分担，两种时钟都列出：

# %%
table(measure.chip_rows((2, 4, 8)), kind="computed")

# %% [markdown] tags=["en"]
# The verdict rests on column *time at a full chip's clock (ms)*, with five points to note:
#
# - Only one chip was routed full, the LFE5U-85F. All chips are computed at its clock, whatever they
#   could reach themselves (the XCVU9P with the figures of its older sister family).
# - That chip was filled by one large unit. Many small units have shorter wires inside and may run
#   faster. Small units also fill a chip best, but eat more data: 2 / side bytes per multiplication.
# - For the verdict we take units of 4 x 4, the largest that each of the six chips holds. At the
#   clock of a single unit, three chips stay within 100 ms; at that of a full chip, two do: the
#   XC7Z020 takes 107 to 112 ms, and the XC7A100T 93 to 97.
# - For 100 ms, the XC7Z020 would need 71 MHz, the LFE5U-85F 103, the XC7A35T 185 and the LFE5U-25F
#   922.
# - No Xilinx chip was routed, and the sums of Xilinx chips stay inside the multiplier blocks, so
#   their ✗ holds at this clock only.
#
# Choose a clock, a side, and how many units stand side by side; the figure says which chips hold
# them.

# %% [markdown] tags=["zh"]
# 结论依据“按放满芯片的时钟”一列。真正放满并布线过的只有 LFE5U-85F 一款，其余芯片不论自身快慢，都按它的时钟频率计算
# （XCVU9P 还用了同厂上一代系列的综合结果）。放满它的是一个大单元；换成许多小单元，内部连线较短，可能跑得更快。
# 小单元也最能填满芯片，但更费数据：每次乘法要 2 / 边长个字节。结论里取 4 × 4，它是六款芯片都放得下的最大单元。
# 按只放一个单元的时钟，有三款在 100 毫秒以内；按放满的时钟只剩两款：XC7Z020 要 107 至 112 毫秒，XC7A100T 要 93 至 97。
# 要在 100 毫秒内完成，XC7Z020 需要 71 MHz，LFE5U-85F 103，XC7A35T 185，LFE5U-25F 922。Xilinx 的芯片都没有布线过，
# 它们的累加又在 DSP 块内完成，所以它们的 ✗ 只在这个时钟频率下成立。
#
# 选时钟频率、边长，以及并排放几个单元；图中写着哪些芯片放得下。

# %%
explore(figures.serving)

# %%
clocks = measure.clocks_mhz(measure.FULL_SIDE)
sides = {"wrong-4": measure.SIDE, "wrong-own": unit}
wrong = {id: (side, measure.simulate_unit(side)[0]) for id, side in sides.items()}
chips = verdicts.fpga_evidence(wrong, read_published("fpga"), clocks)
times = [item.value for item in chips if item.id.startswith("ms-")]
p_chips.reveal(sum(ms <= measure.TARGET_MS for ms in times))

# %% [markdown] tags=["en"]
# ## 7 · Where it breaks
#
# **A wrong sign.** The tests change one operator of this description at a time, such as `+` into
# `-`, or let a column start with the wrong delay, and expect the comparison above to fail each
# time. A hardware test that cannot fail would be worth nothing: an FPGA can be reloaded, but a chip
# made from this description cannot.
#
# **The feed.** A unit eats 2 · side bytes per clock: 0.8 GB/s for 4 x 4 at 100 MHz, so 15 of them
# on an XC7A100T eat 12 GB/s. MiniLM's linear layers are 10.6 MB in int8, more than the small chips
# hold, so weights come from outside, again for every row of tiles.
#
# **The rest of the model.** Softmax, LayerNorm, GELU and scales are not matrix products. They need
# hardware of their own, or a processor beside the array, and their time comes on top of ours.
#
# **The edge.** 9 tokens on 8 rows take two folds, the second with one row in use. Latency matters
# most with short texts and small batches, and these are what arrays are worst at.

# %% [markdown] tags=["zh"]
# ## 7 · 何时失效
#
# **符号错了。** 测试每次改错这份描述中的一个运算符，比如把 `+` 改成 `-`，或让某一列以错误的延迟开始，并要求上面的比对每次都失败。
# 不可能失败的硬件测试毫无价值：FPGA 可以重新加载，按这份描述制成的专用芯片却改不了。
#
# **喂数据。** 单元每个时钟吃掉 2 × 边长个字节：4 × 4 在 100 MHz 下是 0.8 GB/s，XC7A100T 上的 15 个就是 12 GB/s。
# MiniLM 的线性层用 int8 存是 10.6 MB，小芯片的片上存储装不下，权重要从外面来，而且每换一排分块都要重读一遍。
#
# **模型的其余部分。** softmax、LayerNorm、GELU 和缩放都不是矩阵乘法，要有自己的硬件，或旁边配一个处理器，时间另计。
#
# **边角。** 9 个 token 放在 8 行上要两折，第二折只用一行。最看重延迟的正是短文本、小批次，而这恰恰是阵列最不擅长的。

# %% [markdown] tags=["en"]
# ## 8 · Verdicts

# %% [markdown] tags=["zh"]
# ## 8 · 结论

# %%
published, launch = read_published("tpu_v4"), measure.launch_seconds()
checks = measure.model_check_rows(["fp16"])
evidence = verdicts.npu_evidence(measure.TOKENS, launch, published, checks)
lab.verdict("npu-latency", verdicts.npu_latency(evidence))

# %%
lab.verdict("fpga-inference", verdicts.fpga_inference(chips))

# %% [markdown] tags=["en"]
# ## 9 · Exercises
#
# **08-2, a target to beat.** A search query has 5 tokens; the first layer of MiniLM's FFN (*FFN
# up*) is then a product of 5 x 384 with 384 x 1536. A 16 x 16 array needs 37,967 cycles at best.
# Find rows, columns and dataflow, with at most 256 cells, that come within 2 % of the fewest cycles
# possible.
#
# <details><summary>Hint</summary>Lay the dimension of size 5 along a side that 5 cells fill. Three
# short nested loops over <code>systolic.gemm_cycles</code> find the answer.</details>

# %% [markdown] tags=["zh"]
# ## 9 · 练习
#
# **08-2，挑战题。** 一次搜索查询有 5 个 token，MiniLM 前馈网络的第一层就是 5 × 384 乘 384 × 1536。
# 16 × 16 的阵列最好也要 37,967 个周期。在至多 256 个单元里找出行数、列数和数据流，使周期数与可能的最少值相差不到 2%。
#
# <details><summary>提示</summary>只有 5 个的那一维，应铺在 5 就能填满的一边。用 <code>systolic.gemm_cycles</code> 写三重循环即可找到。</details>

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
# weight stream past in one go. The best array with outputs in place, 5 x 50, takes 13,546, 3.6 %
# more: too many.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-08-2"]
# <details><summary>答案</summary>
#
# ```python
# answer_2 = (48, 5, "is")
# ```
#
# 13,079 个周期：5 个 token 铺在 5 列上，48 行整除 384，权重的 1,536 列一次连续流过。输出驻留时最好的是 5 × 50，
# 要 13,546 个，多 3.6%，不合要求。
#
# </details>

# %% [markdown] tags=["en"]
# **08-3, beat the `npu-latency` verdict.** Design an NPU that takes at most 0.6 of an A100's time
# in int8 for the whole block, at every batch from 1 to 64, without launches. Give the side of a
# square array, its dataflow, and its peak and bandwidth as a multiple of the GPU's (`times`), at
# most twice. How low can that multiple go, and what is the limit?
#
# <details><summary>Hint</summary>256 x 256 needs almost three times the GPU's peak and bandwidth.
# Which sizes did later TPUs choose?</details>

# %% [markdown] tags=["zh"]
# **08-3，推翻 `npu-latency` 的结论。** 设计一个 NPU：计算一整层，批大小从 1 到 64，不计启动开销，用时都不超过 A100（int8）的 0.6 倍。
# 给出方阵的边长、数据流，以及峰值和带宽是 GPU 的几倍（`times`），至多 2 倍。最低能到几倍？极限在哪里？
#
# <details><summary>提示</summary>256 × 256 几乎要 3 倍。后来的 TPU 选了多大？</details>

# %% tags=["exercise", "ex-08-3"]
answer_3 = ...  # (side, "os", "ws" or "is", times)

# %%
check("08-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-08-3"]
# <details><summary>Solution</summary>
#
# ```python
# answer_3 = (128, "ws", 1.7)
# ```
#
# 128 x 128 is the array size of TPU v2 to v5: a head of 64 fills half of its rows, and a stream of
# 128 tokens hides its loading. Where the GPU idles nowhere, no design gets below 1 / 0.6 = 1.67:
# 64 x 64 reaches that, 128 x 128 needs 1.70. One array of that strength would have to run at
# 32 GHz. Real designs put several side by side, and the smaller they are, the more the design looks
# like a GPU.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-08-3"]
# <details><summary>答案</summary>
#
# ```python
# answer_3 = (128, "ws", 1.7)
# ```
#
# 128 × 128 正是 TPU v2 到 v5 的大小：长 64 的头填满一半的行，128 个 token 的流盖得住装载。
# 只要 GPU 没有空转，任何设计都低不过 1 / 0.6 = 1.67 倍：64 × 64 能达到它，128 × 128 要 1.70。这样强的单个阵列要跑到 32 GHz：
# 真实的设计把几个阵列并排放；阵列越小，就越像 GPU。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - A systolic array reads each number once per fold and hands it on.
#   Cycles = folds · (load + diagonal + stream), exactly as in SCALE-Sim.
# - Large arrays need long streams. One head of 64 alone uses 1.8 % of 256 x 256 cells; heads in a
#   row, with a second register that hides the loading, use 6.25 %.
# - With texts of 128 tokens, the first TPU reaches 0.6 of a GPU's time only against a V100 or an
#   A100 in fp32, from a batch of 4 on; against fp16 or int8 it does not. In the model, an array as
#   strong as the GPU is level with it on linear products and loses on the heads. At batch one, an
#   A100 or H100 waits for launches, and the first TPU for weights.
# - One OpenVINO file runs on CPU, GPU or NPU; `available_devices` says what a machine has.
# - An int8 unit is fifty lines of hardware description. It is exact and takes one multiplier per
#   cell. How many units fit on a chip, and at which clock it runs once it is full, determine how
#   long a text takes.
#
# **References.** Kung 1982, *Why Systolic Architectures?* Jouppi et al. 2017, *In-Datacenter
# Performance Analysis of a Tensor Processing Unit*. Jouppi et al. 2023, *TPU v4: An Optically
# Reconfigurable Supercomputer for Machine Learning with Hardware Support for Embeddings*. Samajdar et al. 2020, *A Systematic Methodology
# for Characterizing Scalability of DNN Accelerators using SCALE-Sim*. Wolf et al., *Yosys*. Shah et
# al. 2019, *Yosys+nextpnr*. The Amaranth project. Google Cloud's documentation of the TPUs.
#
# **Next:** [09 · Quantization](09_quantization.ipynb): where the int8 numbers come from, and
# what they cost.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 脉动阵列每折把每个数只读一次，再逐格传递。周期 = 折数 ·（装载 + 对角线 + 流），与 SCALE-Sim 完全一致。
# - 阵列越大，越要靠长的流才能喂饱。256 × 256 个单元上，长 64 的一个头单独计算只用到 1.8%；
#   连续计算，并由第二个寄存器藏起装载，则是 6.25%。
# - 只有 V100 或 A100 用 fp32 时（128 个 token，批大小从 4 起），第一代 TPU 的用时才降到 0.6 倍；与 fp16 或 int8 相比则降不到。
#   在模型里，与 GPU 同样强的阵列在线性层上与它相当，输在各个头上。批大小为 1 时，A100 和 H100 等的是启动，第一代 TPU 等的是权重。
# - 一个 OpenVINO 文件可以跑在 CPU、GPU 或 NPU 上；`available_devices` 列出机器有什么。
# - 一个 int8 单元只是五十行硬件描述。它的结果精确，每格用一个乘法器。芯片放得下几个、放满之后时钟多快，决定一条文本要多久。
#
# **参考文献。** Kung 1982，*Why Systolic Architectures?* Jouppi 等 2017，*In-Datacenter
# Performance Analysis of a Tensor Processing Unit*。Jouppi 等 2023，*TPU v4: An Optically
# Reconfigurable Supercomputer for Machine Learning with Hardware Support for Embeddings*。Samajdar 等 2020，*A Systematic Methodology
# for Characterizing Scalability of DNN Accelerators using SCALE-Sim*。Wolf 等，*Yosys*。Shah 等 2019，
# *Yosys+nextpnr*。Amaranth 项目。Google Cloud 的 TPU 文档。
#
# **下一篇：** [09 · 量化](09_quantization.ipynb)：int8 的数从哪里来，代价是什么。
