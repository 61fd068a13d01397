# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 07 · Compiler fusion
#
# A Transformer block is six matrix products with some forty small operations between them. Run one
# by one, each operation is a kernel of its own: it is launched, reads its inputs from memory and
# writes its result back. A compiler such as XLA merges several operations into one loop, which
# keeps the intermediate results in registers. This notebook has two real compilers do that, reads
# the result in their own output, and asks when compiling pays off.
#
# | | |
# |---|---|
# | **Claim** | `xla-fusion` (section 2.1): XLA fuses operators and so launches fewer kernels |
# | **Time** | 35 minutes; all cells together run in under 60 seconds, most of it compiling, for which torch needs a C++ compiler (`efflab doctor`); a second run finds compiled kernels on disk and is faster |
# | **Afterwards you can** | write a fusion pass; read HLO (XLA's own language) and Inductor's C++; count the bytes that fusing saves; say after how many calls compiling pays off, and when it never does |

# %% [markdown] tags=["zh"]
# # 07 · 编译器融合
#
# 一个 Transformer 块，除了六次矩阵乘法，还有四十来个小算子。逐个执行时，每个算子都是一个独立的内核：
# 启动一次，从内存读入，再把结果写回内存。XLA 这样的编译器把若干算子合成一个循环，中间结果留在寄存器里。
# 本篇让两个真实的编译器来做这件事，从它们自己的输出中读出结果，再问：什么时候划算？
#
# | | |
# |---|---|
# | **论断** | `xla-fusion`（第 2.1 节）：XLA 融合算子，从而减少内核启动次数 |
# | **用时** | 35 分钟；全部单元格合计不到 60 秒，大部分花在编译上，为此 torch 需要一个 C++ 编译器（见 `efflab doctor`）；再次运行时，编译好的内核已在磁盘上，会更快 |
# | **学完之后** | 能写出一个融合 pass；能读懂 HLO（XLA 自己的语言）和 Inductor 生成的 C++；能算出融合省下多少字节；能说清调用多少次之后编译才划算，以及何时永远不划算 |

# %% tags=["parameters"]
language = "en"
d_model = 256  # channels of the block: 64 to 512 in steps of 64
seq_len = 256  # tokens: 16 to 1024
seed = 0  # of weights and input: 0 to 999999

# %%
from dataclasses import replace

import numpy as np
import torch

from efflab import lab
from efflab.acceleration import block, fusion, inductor, xla
from efflab.experiments import gpu_bench
from efflab.lab import check, explore, predict, show, show_source, table, verdict
from efflab_rooms import texts
from efflab_rooms.compiler_fusion import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("07_compiler_fusion", exercises.EXERCISES, texts("compiler_fusion"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# One block, *written out* (LayerNorm, softmax and GELU broken down into single array operations),
# is 46 operations for XLA: 6 matrix products and 40 others, of which the two LayerNorms account
# for 22. Reshapes, transposes and broadcasts do not count. However much XLA fuses, at least six
# kernels remain for the products.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 一个块完全展开后（LayerNorm、softmax 和 GELU 都写成一个个数组算子），交给 XLA 的是 46 个算子：6 次矩阵乘法和 40 个其他算子，其中两个 LayerNorm 占 22 个。
# 变形、转置和广播不计。无论 XLA 怎样融合，矩阵乘法至少还占 6 个内核。

# %%
n_kernels = predict(
    "Into how many kernels does XLA compile these 46 operations on a CPU?",
    unit="kernels",
)

# %% [markdown] tags=["en"]
# ## 2 · One block, nothing fused by hand
#
# LayerNorm, softmax and GELU are written here as their formulas. The same code runs in torch and in
# JAX, whose compiler is XLA. `scope` gives each part a name, which XLA keeps.

# %% [markdown] tags=["zh"]
# ## 2 · 一个块，不做任何手工融合
#
# 这里 LayerNorm、softmax 和 GELU 都照公式写。同一段代码既能在 torch 中运行，也能在 JAX 中运行，
# JAX 的编译器就是 XLA。`scope` 给每一部分起名，XLA 会保留这个名字。

# %%
show_source(block.layer_norm, block.softmax, block.gelu, block.block)

# %% [markdown] tags=["en"]
# Does it compute the same as the block of the other notebooks, in both frameworks?

# %% [markdown] tags=["zh"]
# 它和其他笔记本里的块一样吗？两个框架都要对照。

# %%
forms = measure.make_block(d_model, seq_len, seed)
expected = forms.layer(forms.x)
output = xla.compile_call(forms.in_jax, *forms.jax_arrays)()
outputs = {"torch": forms.in_torch(forms.x), "JAX": torch.from_numpy(np.array(output))}
for framework, output in outputs.items():
    gap = (output - expected).abs().max().item()
    print(f"{framework:5} ", lab.tr("differs from torch's layer by less than 1e-5:"), gap < 1e-5)

# %% [markdown] tags=["en"]
# ## 3 · Build: a fusion pass
#
# Take bias and GELU on n values: `add`, `multiply` twice, `erf`, `add`, `multiply`. One by one,
# they read and write 13 n values in total. In one loop, each value is read once and written once:
# 2 n.
#
# What may share a loop? Operations that work value by value on equally many values can always
# follow one another (our pass joins unequal shapes too, and leaves the nesting to the compiler). A
# **reduction** (a sum, a maximum) can end a loop, but its result is known only when the loop is
# over, so whatever needs it goes into a later loop. A matrix product (**dot**) is a library kernel
# and stays alone.
#
# **07-1.** Your turn: `chain` is a list of operations, each reading the result of the one before.
# Return the kernels as a list of lists. A new kernel begins at the first operation, at every
# `"dot"`, and after a `"dot"` or a `"reduce"`.
#
# <details><summary>Hint</summary>Keep a list of kernels. For each operation either open a new kernel or append to the last; look at the last operation of the last kernel to decide.</details>

# %% [markdown] tags=["zh"]
# ## 3 · 实现：一个融合 pass
#
# 以 n 个值上的偏置加 GELU 为例：`add`、两次 `multiply`、`erf`、`add`、`multiply`。逐个执行要读写 13 n 个值；
# 放进一个循环，每个值只读一次、写一次：2 n。
#
# 哪些算子可以共用一个循环？逐值计算、值的个数又相同的算子，总能一个接一个放进去（我们的 pass 对形状不同的也照样合并，
# 嵌套循环交给编译器）。**归约**（求和、求最大值）可以放在循环末尾，
# 但循环结束才知道结果，用到它的算子只能进后面的循环。矩阵乘法（**dot**）是库里的内核，单独成一个。
#
# **07-1.** 请你来写：`chain` 是一串算子，每个算子读入前一个的结果。返回内核，即列表的列表。
# 新内核的起点是：第一个算子，每个 `"dot"`，以及 `"dot"` 或 `"reduce"` 之后的算子。
#
# <details><summary>提示</summary>维护一个内核列表。对每个算子，要么新开一个内核，要么追加到最后一个；看最后那个内核的最后一个算子来决定。</details>


# %% tags=["exercise", "ex-07-1"]
def kernels(chain):
    return ...


# %%
check("07-1", kernels)

# %% [markdown] tags=["solution", "ex-07-1"]
# <details><summary>Solution</summary>
#
# ```python
# def kernels(chain):
#     made = []
#     for op in chain:
#         if op == "dot" or not made or made[-1][-1] in ("dot", "reduce"):
#             made.append([])
#         made[-1].append(op)
#     return made
# ```
#
# </details>

# %% [markdown] tags=["en"]
# A program is a graph, not a chain: an operation may read several results. In our pass, an
# operation joins the *latest* kernel that it reads from, so no kernel ever waits for a later one.

# %% [markdown] tags=["zh"]
# 程序是图而不是链：一个算子可能读入好几个结果。我们的做法是让它加入所读内核中*最晚*的那个，
# 这样任何内核都不会等待比自己更晚的内核。

# %%
show_source(fusion.fuse)

# %% [markdown] tags=["en"]
# ## 4 · XLA's own output
#
# `jax.jit(...).lower(...)` gives the program that XLA is handed, `.compile()` the program that XLA
# makes of it, both in HLO ("high-level operations", XLA's own language). We count the instructions
# of both. Bytes are what each kernel reads and writes, with every tensor counted once per kernel.
# Before compiling, *XLA's own count* is far higher, because it treats every broadcast and reshape
# as a copy; after compiling, its count and ours agree.

# %% [markdown] tags=["zh"]
# ## 4 · XLA 自己的输出
#
# `jax.jit(...).lower(...)` 给出交给 XLA 的程序，`.compile()` 给出 XLA 编译后的程序，两者都用 HLO 写成
# （high-level operations，XLA 自己的语言）。我们清点两者的指令。
# 字节数是每个内核读写的量，每个张量在每个内核中计一次。*XLA 自己的计数*在编译前高得多，
# 因为它把每次广播和变形都当成复制；编译之后，它的计数与我们的一致。

# %% tags=["nbval-ignore-output"]
reports = measure.block_reports(forms)
report = reports["written out, XLA"]
n_kernels.reveal(report.n_kernels)

# %%
before, after = report.compiler_bytes
own = replace(report, bytes_before=before, bytes_after=after)
ours = fusion.fuse_report(report.ops)
rows = [measure.report_row("written out", "XLA", report)]
rows += [measure.report_row("XLA's own count", "XLA", own)]
rows += [measure.report_row("written out", "our fuser", ours, kind="computed")]
table(rows)

# %%
show(figures.graph_figure(report, lab.tr("One block before and after XLA")))

# %% [markdown] tags=["en"]
# Read the figure row by row:
#
# - Bias and GELU have become one kernel, as promised.
# - A LayerNorm still takes five kernels: each of its two means ends a loop.
# - Softmax takes four. In the first, the maximum and the operations that need it share a kernel. So
#   a kernel can hold more than one loop, which our rule of section 3 does not allow.
# - XLA computes some operations *twice* rather than store their result (count the markers in the
#   rows of the norms, or the three additions of the same bias after `qkv`'s product).
# - XLA inserts copies where a product wants its numbers in another order.
#
# Our twenty lines make fewer kernels than XLA, but so far only on paper: they ignore memory layouts
# and the cost of a loop, which XLA weighs. Section 6 runs these kernels.
#
# This is the kernel for bias and GELU in HLO. Each line is one operation: the type and shape of its
# result, then its name and what it reads. The line marked ROOT is written to memory:

# %% [markdown] tags=["zh"]
# 逐行来看。偏置和 GELU 如前所述合成了一个内核。LayerNorm 仍要五个：它的两次求均值各自结束一个循环。
# softmax 要四个；其中第一个把求最大值和用到它的算子放进了同一个内核：一个内核可以含不止一个循环，
# 我们第 3 节的规则不允许这样做。有些算子 XLA 宁可*算两遍*也不存结果（数一数两行“归一化”里的点，或 `qkv`（图中“q、k、v”一行）的乘法之后对同一偏置的三次加法）；
# 矩阵乘法需要另一种数据排列时，它还会插入复制。
#
# 我们这二十行代码得到的内核比 XLA 还少，但目前还只是纸面上的：它不考虑内存布局，也不管一个循环要花多少时间，
# 而 XLA 会权衡这些。第 6 节会真的运行它们。
#
# 偏置加 GELU 的内核，用 HLO 写出来是这样。每行一个算子：先是结果的类型和形状，再是算子名和它读入的值；
# 标有 ROOT 的一行写回内存：

# %% tags=["nbval-ignore-output"]
gelu = next(kernel for kernel in report.kernels if kernel.part == "gelu")
print(xla.kernel_text(report, gelu.name))

# %% [markdown] tags=["en"]
# ## 5 · Derive: the bytes of softmax(QKᵀ)V
#
# Take one head, with T tokens of D channels. Written out, its attention is eight operations. Here
# T = 4 and D = 2, small enough to check by hand; the numbers of values come from the program handed
# to XLA.

# %% [markdown] tags=["zh"]
# ## 5 · 推导：softmax(QKᵀ)V 的字节数
#
# 一个头，T 个 token，每个 D 个通道，展开后是八个算子。这里取 T = 4、D = 2，小到可以手算；
# 表中值的个数取自交给 XLA 的程序。

# %%
ops = measure.attention_report(4, 2).ops  # T = 4, D = 2
rows = []
for (name, (reads, writes)), op in zip(figures.OPERATIONS.items(), ops, strict=True):
    row = {"operation": name, "reads": reads, "writes": writes}
    row |= {"values read": sum(op.reads.values()) // 4}  # 4 bytes each
    rows.append(row | {"values written": op.nbytes // 4})
table(rows)

# %% [markdown] tags=["en"]
# They add up to **12 T² + 4 T D + 4 T** values, here 192 + 32 + 16 = 240, or 960 bytes in fp32.
#
# Fuse the six operations between the products into one kernel, and the scores are written, read,
# written again and read again: **4 T² + 4 T D** = 96 values. Now keep the scores in the cache from
# the first product to the second, as FlashAttention does. If a head's keys and values stay in the
# cache as well, only the inputs and the output are left: **4 T D** = 32 values. The T² of the
# scores is gone from the memory traffic. (For longer texts, FlashAttention rereads K and V for each
# block of queries: its traffic is of the order of T² D² / M for a cache of M values, far below T²
# but not linear.)

# %% [markdown] tags=["zh"]
# 加起来：**12 T² + 4 T D + 4 T** 个值，这里是 192 + 32 + 16 = 240，按 fp32 计 960 字节。
#
# 把两次矩阵乘法之间的六个算子融合成一个内核：分数写一次、读一次、再写、再读，**4 T² + 4 T D** = 96 个值。
# 若从第一次乘法到第二次乘法都让分数留在缓存里，如 FlashAttention 所做，而且一个头的 K、V 也都留在缓存里，
# 就只剩两端的读写：**4 T D** = 32 个值，分数的 T² 不再进出内存。（文本更长时，FlashAttention 每处理一块查询都要重读 K、V，
# 缓存为 M 个值时访存量为 T² D² / M 的量级，远少于 T²，但不是线性。）

# %%
total = fusion.attention_bytes(4, 2)
counted = measure.attention_report(4, 2).bytes_before
print(lab.tr("{n} bytes by formula, {counted} counted", n=total, counted=counted))
for fused in ("none", "softmax", "all"):
    n_bytes = fusion.attention_bytes(4, 2, fused=fused)
    print(f"{fused=:8}", lab.tr("{n:4} bytes", n=n_bytes))

# %% [markdown] tags=["en"]
# ## 6 · Measure: how much of it reaches the clock
#
# We time compiled and uncompiled runs interleaved, on as many threads as torch uses. The first row
# of each framework is the baseline against itself (A/A): identical runs differ by that much here,
# and only a difference beyond it counts. A ratio is the median over pairs of runs, so it may differ
# from the quotient of the two medians in column *time (ms)*. `torch.compile`, whose compiler is
# Inductor, comes in the next section; its times are already listed here.
#
# Our fuser's kernels run too. In `torch`, the same block is 43 operations, of which the fuser makes
# 19 kernels. Inductor compiles each loop of several operations on its own, into one kernel each;
# products and single operations use torch's kernels:

# %% [markdown] tags=["zh"]
# ## 6 · 实测：有多少体现在时间上
#
# 编译与不编译交替计时，线程数与 torch 相同。每个框架的第一行是基线与它自己相比：在这台机器上，
# 两次同样的运行也会差这么多（A/A），超出这个范围才算数。比值是成对运行之比的中位数，所以可能与两个耗时中位数之商略有出入。
# `torch.compile`（编译器是 Inductor）下一节再讲，时间先列在这里。我们的融合 pass 这次也真的运行一遍：同一个块在 torch 中有 43 个算子，它合成 19 个内核。
# 含多个算子的循环由 Inductor 逐个编译，每个正好一个内核；矩阵乘法和单个算子仍用 torch 的内核：

# %%
show_source(measure.compile_plan)

# %% tags=["nbval-ignore-output"]
times = measure.block_times(forms)
table(measure.time_rows(times), kind="measured")

# %% [markdown] tags=["en"]
# A row with *no* in column *outside the noise?* shows nothing. For a row with *yes*, compare the
# time with the bytes and kernels of the next section: the six products (0.47 GFLOP at the defaults)
# are in every row, and no fusion makes them faster. XLA's gain may not be due to fusion alone: its
# baseline is JAX under `disable_jit`, one primitive at a time, where every operation also pays for
# JAX's Python. We have not separated the two.
#
# Are fewer kernels faster? torch's rows have 43 kernels (single operations), 19 (our fuser), 13
# (Inductor) and 10 (torch's own). Where the intervals of two rows overlap, the times cannot
# separate them: the products are the same in all rows. Our fuser's plan also pays for calling nine
# compiled loops from Python, one by one.

# %% [markdown] tags=["zh"]
# “超出噪声？”一列为“否”的行，说明不了问题。为“是”的行，请与下一节的字节数和内核数相比：六次矩阵乘法（默认参数下 0.47 GFLOP）
# 每一行都有，融合并不能让它更快。XLA 的降幅可能不全是融合带来的：它的基线是 `disable_jit` 下逐个原语执行的 JAX，
# 每个算子还要付 JAX 自己的 Python 开销。两者各占多少，我们没有拆开测。
#
# 内核越少就越快吗？torch 各行的内核数依次是 43、19（我们的融合 pass）、13（Inductor）和 10（torch 自带）。
# 两行的区间若有重叠，时间就分不出高下：各行的矩阵乘法都一样。此外，我们的方案还要从 Python 逐个调用九个编译好的循环。

# %% [markdown] tags=["en"]
# ## 7 · The same block through torch.compile
#
# Inductor, torch's compiler, writes C++ for the loops and calls the library for the products. The
# last row of the table is not the written-out block but torch's own layer, whose LayerNorm,
# attention and GELU were fused **by hand** years ago.

# %% [markdown] tags=["zh"]
# ## 7 · 用 torch.compile 编译同一个块
#
# torch 的编译器 Inductor 为循环生成 C++，矩阵乘法仍调用库。表中最后一行不是展开的写法，而是 torch 自己的层，
# 其中的 LayerNorm、注意力和 GELU 早已由人**手工融合**好。

# %%
written = reports["written out, Inductor"]
library = reports["torch's own kernels, Inductor"]
rows = [measure.report_row("written out", "XLA", report)]
rows += [measure.report_row("written out", "Inductor", written)]
rows += [measure.report_row("torch's own kernels", "Inductor", library)]
table(rows)

# %%
show(figures.graph_figure(written, lab.tr("The same block before and after Inductor")))

# %% [markdown] tags=["en"]
# Inductor puts a whole LayerNorm into one kernel: several loops in a row, with no launch between
# them (a kernel's box names each kind of operation once). But look at the table's last row.
# **Without any compiler**, the library runs the block in 10 kernels (column *operations*; 9 with
# Inductor) and moves fewer bytes (column *MB before*) than the written-out block does after either
# compiler (*MB after*). Fusing by hand is what compilers compete with.
#
# The C++ of bias and GELU has one loop over rows and one over channels, several values at a time:

# %% [markdown] tags=["zh"]
# Inductor 把整个 LayerNorm 放进一个内核：几个循环前后相接，中间不必再启动（方框里每种算子只列一次）。
# 但请看表的最后一行：**不用任何编译器**，库只用 10 个内核（该行算子的个数；经 Inductor 为 9 个）就跑完这个块，
# 搬运的字节（编译前的）也比两个编译器处理展开写法后的更少。
# 编译器的竞争对手，正是人工融合。
#
# 偏置加 GELU 的 C++：外层循环遍历行，内层循环遍历通道，一次处理好几个值：

# %% tags=["nbval-ignore-output"]
name = next(kernel.name for kernel in written.kernels if "erf" in kernel.ops)
print(inductor.cpp_source(written, name))

# %% [markdown] tags=["en"]
# ## 8 · What a launch costs
#
# The model is **t = n · overhead + bytes / bandwidth**. To test it, we run n additions and
# multiplications in a row, on few values and on many, and fit the two constants to all of the
# times. Does one pair of constants explain every row?

# %% [markdown] tags=["zh"]
# ## 8 · 启动一次要多少时间
#
# 模型：**t = n · 启动开销 + 字节数 / 带宽**。检验方法：连续做 n 次加法和乘法，值的个数有少有多，
# 用全部结果拟合这两个常数。一对常数能解释每一行吗？

# %% tags=["nbval-ignore-output"]
chains = measure.time_chains()
model = measure.fit_chains(chains)
table(measure.fit_rows(chains, model))
table(figures.constant_rows(model))

# %% [markdown] tags=["en"]
# For 16 kernels and more it mostly does, with errors of a few tenths, while the times span more
# than two orders of magnitude in all. A single kernel can take several times what the model says;
# part of it may be the overhead of the call itself, which the model leaves out. Below the size at
# which the two terms are equal (column *break-even size*), a kernel costs its launch, whatever it
# computes; above it, its bytes. The bandwidth is that of a cache, because these arrays fit into
# one.
#
# On a GPU, launches run ahead: while the GPU works, the CPU already queues the next kernels. So the
# **longer** of the two terms counts instead of their sum, and only that fits what `make bench-gpu`
# recorded there (run it, and your GPU joins the table). The bandwidth there is so much
# higher that far larger tensors count as "small".
#
# Now 16 operations as one kernel, compiled by XLA:

# %% [markdown] tags=["zh"]
# 16 个及以上的内核大体符合：全部时间跨越两个多数量级，误差多在几成之内；只有一个内核时，用时可达模型的几倍，其中一部分可能是调用本身的开销，模型没有算这一项。张量小于“两项相等时的大小”一列给出的值时，内核的代价就是启动，算什么都一样；大于这个值，代价就是字节。
# 这里的带宽是缓存的带宽，因为这些数组放得进缓存。
#
# 在 GPU 上，启动可以提前：GPU 还在计算时，CPU 已把后面的内核排进队列。因此起作用的是两项中**较大**的一项，而不是两项之和，
# 也只有这样才符合 `make bench-gpu` 存档的测量（在你的 GPU 上运行，表中就会多出一行）。
# 那里的带宽高得多，于是大得多的张量也算“小”。
#
# 再把 16 个算子交给 XLA 编成一个内核：

# %% tags=["nbval-ignore-output"]
table(measure.fused_rows(chains), kind="measured")

# %% [markdown] tags=["en"]
# The speed-up is far from 16: calling a compiled program costs ten microseconds or more here,
# whatever it computes, as much as many of torch's launches. Only with many values do the saved
# bytes outweigh that cost. We have not broken it down.
#
# The figure's lines and filled dots come from the model (computed). The model charges the fused
# kernel one launch and nothing for the call, so the title says what fusing *could* give. Open
# symbols are the measured chains: with few values, the fused ones lie far above their line. Move
# the number of operators and of values. Set the launch overhead to 5 µs and choose a GPU: at which
# size do the bytes take over from the launches, and does the speed-up change there?

# %% [markdown] tags=["zh"]
# 加速比远不到 16：在这台机器上，调用一次编译好的程序，无论算什么都要十微秒以上，相当于启动 torch 的许多个内核；
# 值很多时，省下的字节才更要紧。这段时间花在哪里，我们没有细究。
#
# 图中的线和实心点是模型（计算）：它只给融合后的内核计一次启动，不计调用本身，所以标题说的是融合*可能*带来的加速。
# 空心符号是实测的链：值少时，融合后的实测点远在线的上方。拖动算子个数和值的个数；
# 再把启动开销调到 5 µs，选一块 GPU：从多大开始，代价由启动变为字节？加速比在那里变不变？

# %% tags=["nbval-ignore-output"]
explore(figures.fusion_cost_here(model, chains), frames=7)

# %% [markdown] tags=["en"]
# ## 9 · Where it breaks: when compiling does not pay
#
# **Small shapes.** We compile bias and GELU once for any length, and compare the result with the
# six operations and with the two kernels (`+` and `gelu`) that torch has anyway.

# %% [markdown] tags=["zh"]
# ## 9 · 何时失效：编译不划算的时候
#
# **形状太小。** 偏置加 GELU 只编译一次，适用于任意长度；与六个算子相比，也与 torch 现成的两个内核（`+` 和 `gelu`）相比。

# %% tags=["nbval-ignore-output"]
table(measure.small_rows(), kind="measured")

# %% [markdown] tags=["en"]
# A ratio above 1 is a loss if it lies outside the noise (the interval is that of column *time /
# torch's two kernels*). With few values, the compiled program may lose even to the six operations;
# it loses to torch's own two wherever the whole interval lies above 1.
#
# **Changing shapes.** XLA compiles a program for one shape. Sentences come in all lengths, so XLA
# compiles again for each; people therefore pad to a few lengths. torch starts in the same way, but
# it notices which size changes, and its second compilation covers any value of it. The table counts
# compilations so far:

# %% [markdown] tags=["zh"]
# 比值大于 1 且超出噪声，就是变慢（表中的区间是与 torch 现成两个内核之比的区间）。值少时，编译后的程序可能连六个单独的算子都不如；
# 区间整个在 1 以上时，它就不如 torch 现成的两个内核。
#
# **形状多变。** XLA 的一个程序只适用于一种形状。句子长短不一，每遇到一种长度就要重新编译，
# 所以人们会填充到少数几种长度。torch 起初也一样，但发现某一维在变之后，第二次就编译成适用于任意长度的版本。
# 表中是累计的编译次数：

# %%
lengths = (100, 200, 300, 400, 500, 120)
static, automatic = (measure.torch_compilations(lengths, dynamic) for dynamic in (False, None))
jax, namespace = xla.load_jax(), block.jax_namespace()
# two functions: JAX keeps one cache for one function, however often it is jitted
exact = jax.jit(lambda x: block.gelu(namespace, x + 1.0))
padded = jax.jit(lambda x: block.gelu(namespace, x + 1.0))
rows = []
for i, n in enumerate(lengths):
    exact(jax.numpy.ones((n, 16)))
    padded(jax.numpy.ones((1 << (n - 1).bit_length(), 16)))  # the next power of two
    rows.append(
        {
            "sequence length (tokens)": n,
            "XLA, default": exact._cache_size(),
            "XLA, padded to a power of two": padded._cache_size(),
            "torch, dynamic=False": static[i],
            "torch, default": automatic[i],
        }
    )
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# **Few calls.** Compiling takes from tenths of a second to many seconds; a call saves milliseconds
# or less.
# (Inductor's seconds are those of the first call, XLA's those of `.compile()` alone, without
# tracing. Inductor finds on disk what it compiled in an earlier run, so run this twice. If the
# interval of their ratio does not separate the two times, the table says *no clear difference*.)

# %% [markdown] tags=["zh"]
# **调用太少。** 编译要零点几秒到十几秒，每次调用省下的是毫秒级，甚至更少。（Inductor 的秒数是首次调用的，
# XLA 的只含 `.compile()`，不含追踪。早先运行时编译过的内核，Inductor 会在磁盘上找到，所以不妨运行两次。
# 若两个时间之比的区间含 1，表中注明“分不出”。）

# %% tags=["nbval-ignore-output"]
baselines = {
    "written out, XLA": times["JAX"].timings["baseline"],
    "written out, Inductor": times["torch"].timings["baseline"],
    "torch's own kernels, Inductor": times["torch"].timings["torch's own kernels"],
}
timings = times["JAX"].timings | times["torch"].timings
rows = []
for form, baseline in baselines.items():
    seconds, before, after = reports[form].seconds, baseline.median, timings[form].median
    calls = fusion.calls_to_pay(seconds, before, after)
    ratio = timings[form].ratio_interval(baseline)
    pays = "never" if calls == float("inf") else f"{calls:,.0f}"
    if ratio.low <= 1 <= ratio.high:
        pays = "no clear difference"
    row = {"form": form, "compile time (s)": seconds}
    row |= {"saved per call (ms)": 1e3 * (before - after), "pays off after (calls)": pays}
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 10 · What became of it: compilers that know attention
#
# Loop fusion never removes the T²: a softmax cannot join the products on either side of it. So
# compilers learned the *pattern*. Given softmax(QKᵀ)V as people write it, in four operations,
# Inductor replaces it with the hand-written fused kernel, and the bytes drop to those of our
# formula for one kernel.

# %% [markdown] tags=["zh"]
# ## 10 · 后来的发展：认得注意力的编译器
#
# 循环融合消不掉 T²：softmax 无法并入两旁的矩阵乘法。于是编译器学会了识别*模式*。
# 把 softmax(QKᵀ)V 照常写成四个算子，Inductor 会把它换成人工写好的融合内核，字节数也就降到公式最后一行的值。

# %%
pattern = measure.pattern_report(seq_len)
made = dict(ops=pattern.n_ops, kernels=pattern.n_kernels, name=pattern.kernels[0].opcode)
print(lab.tr("{ops} operations, {kernels} kernel: {name}", **made))

# %%
size = seq_len, measure.HEAD_DIM, measure.N_HEAD
counts = {"none": measure.attention_report(*size).bytes_before, "all": pattern.bytes_after}
rows = []
for fused, (form, formula) in figures.FORMULAS.items():
    n_bytes, count = fusion.attention_bytes(*size, fused=fused), counts.get(fused)
    rows.append(
        {
            "form": form,
            "values per head": formula,
            "MB (computed)": n_bytes / 1e6,
            "MB (counted in the program)": count / 1e6 if count else None,
            "counted / formula": count / n_bytes if count else None,
        }
    )
table(rows)

# %% [markdown] tags=["en"]
# Attention with an added bias still matches, if it is written like one of Inductor's example
# patterns. Change the formula in another way (a cap on the scores, say) and no pattern matches.
# FlexAttention fills that gap: it compiles a fused attention around your own formula.
#
# On a GPU, where memory is the slow part, the T² costs the most. The two tables show what
# `make bench-gpu` recorded: the block of section 6 in fp32 (1,024 channels and tokens, 16 heads),
# and attention alone by length (8 heads, bf16, not causal). Ratios are again medians over pairs;
# "math" is torch's own unfused way:

# %% [markdown] tags=["zh"]
# 加偏置的写法，只要与它收录的样式一致，Inductor 也还认得；换一种改法（例如给分数设上限），就没有模式可套了。FlexAttention 填补的正是这个空缺：
# 它围绕你给的公式编译出融合的注意力。
#
# GPU 上慢的是显存，T² 的代价最大。下面是 `make bench-gpu` 存档的两项结果：第 6 节的块（fp32，1,024 个通道、1,024 个 token、16 个头），
# 以及单独的注意力（bf16、8 个头、非因果）随长度的变化。比值同样是成对之比的中位数；“math” 是 torch 自带的不融合的算法：

# %%
rows = []
for gpu, part in gpu_bench.read_part(gpu_bench.COMPILED).items():
    baseline = dict(form="written out, single operations", ms=part["ms"], ratio=1.0)
    baseline |= dict(low=1 - part["band"], high=1 + part["band"])
    for row in [baseline, *part["rows"]]:
        ratio = {"time / single operations": row["ratio"], "from": row["low"], "to": row["high"]}
        rows.append({"device": gpu, "form": row["form"], "time (ms)": row["ms"]} | ratio)
table(rows, kind="recorded")

# %%
rows = []
for gpu, part in gpu_bench.read_part(gpu_bench.ATTENTION).items():
    for row in part["rows"]:
        size = {"sequence length (tokens)": row["seq_len"], "kernel": row["kernel"]}
        time = {"time (ms)": row["ms"], "time / written out": row["ratio"]}
        rows.append({"device": gpu} | size | time | {"MB beyond the inputs": row["mb"]})
table([row for row in rows if row["time (ms)"] is not None], kind="recorded")

# %% [markdown] tags=["en"]
# For the block, the compiler gets most of what fusing by hand gives, but not all. In attention, the
# memory of the fused kernels has no T² (flash needs some extra at 512 tokens), and the longer the
# text, the further they pull ahead.
#
# ## 11 · Verdict

# %% [markdown] tags=["zh"]
# 编译器拿到了人工融合的大部分收益，但不是全部。注意力方面，融合内核占的显存不含 T²（flash 在 512 个 token 时另有额外占用），文本越长，领先越多。
#
# ## 11 · 结论

# %% tags=["nbval-ignore-output"]
programs = {
    "block": report,
    "attention": measure.attention_report(seq_len, d_model // measure.N_HEAD, measure.N_HEAD),
    "gelu": measure.gelu_report(seq_len, 4 * d_model),
}
evidence = verdicts.fusion_evidence(programs, reports, times)
verdict("xla-fusion", verdicts.xla_fusion(evidence))

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# **07-2.** How many times fewer bytes does attention move in one kernel than in eight, for T tokens
# of D channels?
#
# <details><summary>Hint</summary>Section 5 has both counts. For long texts the ratio tends to 3 T / D.</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# **07-2.** T 个 token、D 个通道时，八个内核的注意力所搬运的字节，是一个内核时的多少倍？
#
# <details><summary>提示</summary>第 5 节有两种写法的计数。文本很长时，这个倍数趋近 3 T / D。</details>


# %% tags=["exercise", "ex-07-2"]
def times_fewer(T, D):
    return ...


# %%
check("07-2", times_fewer)

# %% [markdown] tags=["solution", "ex-07-2"]
# <details><summary>Solution</summary>
#
# ```python
# def times_fewer(T, D):
#     return (12 * T * T + 4 * T * D + 4 * T) / (4 * T * D)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **07-3. Performance target.** Fuse softmax(QKᵀ)V by hand, without a compiler and without
# `scaled_dot_product_attention`. On inputs of shape (1, 4, 1024, 64), use **at most a quarter of
# the memory** of the written-out version, and be no slower (within its A/A noise). The check
# measures both.
#
# <details><summary>Hint</summary>A few queries have few scores. Take 64 queries at a time, and the scores of each block never leave the cache.</details>

# %% [markdown] tags=["zh"]
# **07-3. 性能目标。** 不用编译器，也不用 `scaled_dot_product_attention`，手工融合：
# 在 (1, 4, 1024, 64) 上计算 softmax(QKᵀ)V，内存**不超过展开写法的四分之一**，而且不能更慢（允许 A/A 噪声）。
# 检查时内存和耗时都会实测。
#
# <details><summary>提示</summary>少数几个查询的分数不多。每次取 64 个查询，这一块的分数就不会离开缓存。</details>


# %% tags=["exercise", "ex-07-3"]
def attend(q, k, v):
    return ...


# %%
check("07-3", attend)

# %% [markdown] tags=["solution", "ex-07-3"]
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
#
# def attend(q, k, v):
#     scale = q.shape[-1] ** -0.5
#     blocks = [(some @ k.mT * scale).softmax(-1) @ v for some in q.split(64, dim=2)]
#     return torch.cat(blocks, dim=2)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **Beat the `xla-fusion` verdict.** Find a function for which XLA does *not* launch fewer kernels,
# or for which the bytes grow: `fusion.xla_report(fn, *arrays)` reports both. Reductions in a row
# are one starting point, a copy that a product demands is another. Conversely, which form of
# LayerNorm (think of E[x²] − E[x]²) needs fewer than five kernels, and what does it cost in
# accuracy?
#
# ## Recap
#
# - A compiler turns operations into kernels; between two products, everything that works value by
#   value can be one loop. On this CPU, XLA saves about 40 % of the kernels and of the bytes;
#   Inductor saves about 70 % of the kernels and 60 % of the bytes.
# - A kernel costs its launch and its bytes: t = n · overhead + bytes / bandwidth. The smaller the
#   tensors, the more the launch counts.
# - The kernels fused by hand are fewer, and move fewer bytes, than those of either compiler here.
#   Today's compilers therefore also recognize patterns and put such kernels in.
# - Compiling pays off after many calls with the same shapes; small or changing shapes lose.
#
# **References.** OpenXLA, *Operation semantics*, openxla.org/xla/operation_semantics. Ansel et al.
# 2024, *PyTorch 2*, doi:10.1145/3620665.3640366. Dao et al. 2022, *FlashAttention*,
# arXiv:2205.14135. Dong et al. 2024, *Flex Attention*, arXiv:2412.05496. Snider and Liang 2023,
# *Operator Fusion in XLA*, arXiv:2301.13062. Hendrycks and Gimpel 2016, *GELU*, arXiv:1606.08415.
#
# **Next:** [08 · Accelerators](08_accelerators.ipynb): hardware in which the loop itself is wired.

# %% [markdown] tags=["zh"]
# **推翻 `xla-fusion` 的结论。** 找一个函数，使 XLA *并不*减少内核数，或者字节反而变多：`fusion.xla_report(fn, *arrays)`
# 两者都会告诉你。可以从连续的归约入手，也可以利用矩阵乘法所要求的复制。反过来也想一想：
# LayerNorm 写成哪种形式（想想 E[x²] − E[x]²），内核能少于五个？精度上又要付出什么？
#
# ## 小结
#
# - 编译器把算子合成内核；两次矩阵乘法之间，凡是逐值计算的都可以放进一个循环。在这块 CPU 上，
#   XLA 省下约四成的内核和字节，Inductor 省下约七成内核、六成字节。
# - 内核的代价是启动加字节：t = n · 启动开销 + 字节数 / 带宽。张量越小，启动所占的比重越大。
# - 在这里，手工融合的内核比两个编译器生成的都少，搬运的字节也更少。所以今天的编译器还会识别模式，直接换上这样的内核。
# - 形状不变、调用次数多，编译才划算；形状小或多变，就不划算。
#
# **参考文献。** OpenXLA，*Operation semantics*，openxla.org/xla/operation_semantics。Ansel 等 2024，
# *PyTorch 2*，doi:10.1145/3620665.3640366。Dao 等 2022，*FlashAttention*，arXiv:2205.14135。Dong 等 2024，
# *Flex Attention*，arXiv:2412.05496。Snider 和 Liang 2023，*Operator Fusion in XLA*，arXiv:2301.13062。
# Hendrycks 和 Gimpel 2016，*GELU*，arXiv:1606.08415。
#
# **下一篇：** [08 · 加速器](08_accelerators.ipynb)：把循环本身做成电路的硬件。
