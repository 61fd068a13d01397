# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 12 · Data parallelism and ZeRO
#
# Several devices train one model: each takes a share of the batch, and all average their gradients
# (the article's section 4.1). ZeRO, from the same section, lowers each card's memory. Both run here
# for real, on two and four processes of this machine, over PyTorch's own communication backend. We
# compare them with a single process, count every byte they send, and measure what each process
# holds.
#
# | | |
# |---|---|
# | **Claims** | `ddp-equal`, `zero-memory` |
# | **Time** | 40 minutes; all cells together run in under 50 seconds, offline, on two cores |
# | **Afterwards you can** | start ranks from a notebook; write a ring all-reduce and say what it sends; choose a bucket size; name four ways in which ranks silently go wrong; say what each stage of ZeRO saves, and what it does not |

# %% [markdown] tags=["zh"]
# # 12 · 数据并行与 ZeRO
#
# 多个设备，同一个模型：各取一部分批次，再把梯度平均（文章第 4.1 节）。文章同一节里的 ZeRO 则降低每张卡的显存。
# 两者都在本机的 2 个和 4 个进程上真实运行，用的就是 PyTorch 自己的通信后端。我们拿它们与单进程对照，
# 统计发出的每一个字节，并测出每个进程占用多少内存、存了什么。
#
# | | |
# |---|---|
# | **论断** | `ddp-equal`、`zero-memory` |
# | **用时** | 40 分钟；全部单元格合计运行不到 50 秒，无需联网，两个核即可 |
# | **学完之后** | 能从笔记本启动多个 rank；能写出环形 all-reduce 并说出它发送多少字节；会选桶的大小；能说出各 rank 不报错却出错的四种情形；能说清 ZeRO 每个阶段省了什么、没省什么 |

# %% tags=["parameters"]
language = "en"
batch_size = 8  # sequences of the whole batch, 5 to 64
seq_len = 64  # tokens of each, 16 to 128
n_steps = 3  # steps that ranks and one process are compared over, 2 to 20
bucket_mb = 1  # MiB of gradients in a bucket of the traced pass, 0.25 to 25

# %%
from dataclasses import replace

from efflab import cost, data, lab
from efflab.config import PRESETS
from efflab.distributed import buckets, data_parallel, ring, zero
from efflab.distributed.launch import RankError, RankPool
from efflab.lab import check, explore, predict, show, show_source, table
from efflab_rooms import texts
from efflab_rooms.data_parallel import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("12_data_parallel", exercises.EXERCISES, texts("data_parallel"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Four ranks hold 100 MB of gradients each, and each must end up with the sum of all four. If all
# send equally much, how many MB must each send at least? And: ZeRO's last stage splits weights,
# gradients and Adam's state into four parts, one for each rank. In a whole training step of our
# small model, what percentage of the memory of plain data parallelism (DDP) does a rank then need?

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 4 个 rank 各有 100 MB 梯度，最后每个都要得到四份之和。如果各 rank 发送得一样多，每个至少要发送多少 MB？
# 另外：ZeRO 的最后一个阶段把权重、梯度和 Adam 的状态都切成四份，每个 rank 一份。在我们这个小模型的一个完整训练步里，
# 每个 rank 需要的内存是普通数据并行（DDP）的百分之几？

# %%
p_sent = predict("How many MB must each of the four ranks send at least?", "MB")

# %%
p_zero = predict("What percentage of DDP's memory does a rank need with ZeRO-3?", "%")

# %% [markdown] tags=["en"]
# ## 2 · Ranks
#
# A *rank* is a numbered process. `RankPool` starts several and keeps them running; each runs a
# function that it can import, and `report` tells us how far it has got. They communicate over
# **gloo**, PyTorch's backend for CPUs. (On GPUs it would be NCCL; the code on top stays the same.)

# %% [markdown] tags=["zh"]
# ## 2 · Rank
#
# *rank* 就是一个带编号的进程。`RankPool` 启动若干个并让它们待命；每个都运行一个可导入的函数，
# `report` 告诉我们它进行到哪里。它们通过 **gloo** 通信，那是 PyTorch 面向 CPU 的通信后端。
# （GPU 上会用 NCCL，上层代码不变。以下几格的输出是程序自身的字符串，保留英文。）

# %%
pools = {n: RankPool(n) for n in (2, 4)}
seen = []
pools[2].run(
    measure.report_steps, 2, timeout=60, on_progress=lambda rank, text: seen.append((rank, text))
)

# %%
sorted(seen)

# %% [markdown] tags=["en"]
# When a rank raises an exception, the call ends at once and names that rank; the other ranks, which
# are waiting for it in a collective, are stopped too. The next call restarts the pool.

# %% [markdown] tags=["zh"]
# 某个 rank 抛出异常时，调用会立即结束，并指出是哪一个；其余在集合通信中等它的 rank 也随之停止。
# 下一次调用时进程池会重新启动。

# %%
try:
    pools[2].run(measure.fail_on_last_rank, timeout=60)
except RankError as error:
    failure = f"rank {error.rank}: {str(error).strip().splitlines()[-1]}"
failure

# %% [markdown] tags=["en"]
# ## 3 · Split the batch, average the gradients
#
# The loss of a batch is the mean over its rows, so its gradient is the mean of the rows' gradients.
# For two ranks with four rows each, the mean of the two means is the mean of all eight:
#
# $$\tfrac12\left(\tfrac{g_1+g_2+g_3+g_4}{4} + \tfrac{g_5+g_6+g_7+g_8}{4}\right) = \tfrac18\sum_i g_i .$$
#
# With five rows on one rank and three on the other it is not: each of the three counts 1/6, each of
# the five 1/10. *Weighting* each rank's loss by (ranks x its rows / all rows) corrects this. Here
# is all of data parallelism:

# %% [markdown] tags=["zh"]
# ## 3 · 切分批次，平均梯度
#
# 一个批次的损失是各行的均值，所以梯度也是各行梯度的均值。两个 rank 各 4 行时，两个均值的均值就是 8 行的均值：
#
# $$\tfrac12\left(\tfrac{g_1+g_2+g_3+g_4}{4} + \tfrac{g_5+g_6+g_7+g_8}{4}\right) = \tfrac18\sum_i g_i .$$
#
# 若是 5 行和 3 行就不成立：3 行那边每行占 1/6，5 行那边每行占 1/10。给每个 rank 的损失*加权*，
# 乘上（rank 数 × 自己的行数 / 总行数），就能修正。数据并行的全部内容就是：

# %%
show_source(data_parallel.average_gradients)

# %% [markdown] tags=["en"]
# The table calls this `by hand`; PyTorch's own version is `DistributedDataParallel` (DDP).
# Differences are the largest difference divided by the largest value: fp32 sums in another order
# differ by roughly 1e-7. The control, *none*, does not average at all. Bytes are the Linux kernel's
# count of what each process really sent (other systems keep no such count: there the next cell
# stops with a rank's `OSError`):

# %% [markdown] tags=["zh"]
# 这就是表中的“手写”。PyTorch 自带的是 `DistributedDataParallel`（DDP）。“差异”指最大差值与最大数值之比：
# fp32 换个顺序求和，会差出约 1e-7。对照组完全不做平均。字节数是 Linux 内核统计的每个进程实际发出的量
# （其他系统没有这项统计，本篇会在这里停下，报出 rank 的 `OSError`）：

# %% tags=["nbval-ignore-output"]
job = measure.job(batch_size, seq_len, n_steps)
one = job.alone()
comparisons = {
    (n, method): measure.compare(pool, replace(job, method=method), one)
    for n, pool in pools.items()
    for method in data_parallel.METHODS
}

# %% tags=["nbval-ignore-output"]
rows = [
    {
        "ranks": n,
        "averaging": method,
        "gradient difference": comparison.gradients,
        "weight difference": comparison.weights,
        "weight difference between ranks": comparison.between_ranks,
        "sent per rank (MB)": comparison.sent / 1e6,
        "ring formula (MB)": comparison.formula / 1e6,
        "sent / formula": comparison.sent / comparison.formula,
    }
    for (n, method), comparison in comparisons.items()
]
table(rows, kind="measured", digits=2)

# %% [markdown] tags=["en"]
# (The optimizer is SGD with momentum, whose step is linear in the gradient. Adam divides by the
# gradient's own size: where a gradient is almost zero, it turns a rounding error into a whole
# step.)
#
# ## 4 · What a sum must send
#
# If everything is sent to one rank and back, that rank sends all of it (n - 1) times. The **ring**
# spreads this work out. Cut the gradients into n parts; in each step every rank passes one part on
# to its neighbour, which adds it to its own. In this example with n = 3, columns are ranks, A to C
# are the parts, and each number says how many ranks' values a sum contains:
#
# | | rank 0 | rank 1 | rank 2 |
# |---|---|---|---|
# | start | A1 B1 C1 | A1 B1 C1 | A1 B1 C1 |
# | step 1: 0 sends A, 1 sends B, 2 sends C | A1 B1 **C2** | **A2** B1 C1 | A1 **B2** C1 |
# | step 2: 0 sends C, 1 sends A, 2 sends B | A1 **B3** C2 | A2 B1 **C3** | **A3** B2 C1 |
#
# After n - 1 steps, each rank holds one finished sum. Another n - 1 steps pass the finished sums
# round. In all, a rank sends 2 (n - 1) parts of 1/n each:
#
# $$\text{sent by a rank} = 2\,\frac{n-1}{n}\times\text{bytes},$$
#
# never more than twice the bytes, however many ranks there are. But bytes are not the only cost:
# the 2 (n - 1) steps come one after the other, and each pays the wire's latency. A **tree** sums on
# the way up and distributes the sum on the way down, in 2 log n steps. With two trees, each for
# half of the gradients, every rank is busy and sends at most twice the bytes. NCCL has both
# algorithms. (The halves stream through in pieces. The times below count the latencies of 2 log n
# steps and the bytes, as if cutting into pieces cost nothing: a lower bound.)
#
# ### Your turn: the ring
#
# **12-1.** Write `ring(parts, send)` (as `answer_1`). `parts[r][i]` is rank r's part i, a tensor
# that you may change in place or replace; `send(r, i)` returns a copy of it and counts it as sent
# by rank r to rank r + 1. In the end, every rank must have every sum, and no rank may have sent
# more than 2 (n - 1) parts.
#
# <details><summary>Hint</summary>Two laps of n − 1 steps, counted from 0. In step s of the first lap, rank r sends
# part r − s, and rank r + 1 adds it to its own; collect what all ranks send before you add. In the
# second lap, rank r sends part r + 1 − s, and rank r + 1 replaces its own with it. All indices are
# modulo n.</details>

# %% [markdown] tags=["zh"]
# （优化器是带动量的 SGD，更新量对梯度是线性的。Adam 会除以梯度自身的大小，梯度接近零时，一点舍入误差就会被放大成整整一步。）
#
# ## 4 · 求和至少要发送多少
#
# 全部发给一个 rank，再由它发回来：它要发送 (n - 1) 份完整的数据。**环**把这件事分摊开。把梯度切成 n 段；
# 每一步里每个 rank 把一段传给下一个，后者加到自己那段上。以 n = 3 为例，列是 rank，A 到 C 是各段，
# 数字表示这个和里已有几个 rank 的值：
#
# | | rank 0 | rank 1 | rank 2 |
# |---|---|---|---|
# | 开始 | A1 B1 C1 | A1 B1 C1 | A1 B1 C1 |
# | 第 1 步：0 发 A，1 发 B，2 发 C | A1 B1 **C2** | **A2** B1 C1 | A1 **B2** C1 |
# | 第 2 步：0 发 C，1 发 A，2 发 B | A1 **B3** C2 | A2 B1 **C3** | **A3** B2 C1 |
#
# n - 1 步之后，每个 rank 各完成一段的和；再用 n - 1 步把完成的段传一圈。共 2 (n - 1) 段，每段 1/n：
#
# $$\text{每个 rank 发送} = 2\,\frac{n-1}{n}\times\text{字节数},$$
#
# rank 再多也不超过两倍。但只看字节数还不够：2 (n - 1) 步只能一步接一步地走，每一步都要付一次链路延迟。
# **树形**算法向上逐层求和、再向下逐层分发，只要 2 log n 步；用两棵树，各走一半梯度，每个 rank 都不闲着，
# 发送量最多是总字节数的两倍。NCCL 两种都有。
# （两半数据是分成小块流水传递的；下面的时间只计 2 log n 步的延迟和传输字节的时间，不计分块的代价，是下界。）
#
# ### 动手：环
#
# **12-1.** 写出 `ring(parts, send)`（赋给 `answer_1`）。`parts[r][i]` 是 rank r 的第 i 段（张量），可原地修改也可替换；
# `send(r, i)` 返回它的副本，并计为 rank r 发给 rank r + 1 的一段。
# 最后每个 rank 都要有全部的和，且发送不超过 2 (n - 1) 段。
#
# <details><summary>提示</summary>两圈，各 n − 1 步，从 0 数起。第一圈第 s 步，rank r 发送第 r − s 段，rank r + 1 加到自己的那段上；
# 要先取完所有 rank 发出的段再相加。第二圈 rank r 发送第 r + 1 − s 段，rank r + 1 用它替换自己的。下标都对 n 取模。</details>

# %% tags=["exercise", "ex-12-1"]
answer_1 = ...  # def answer_1(parts, send): ...

# %%
check("12-1", answer_1)

# %% [markdown] tags=["solution", "ex-12-1"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_1(parts, send):
#     n = len(parts)
#     for s in range(n - 1):
#         moved = [send(r, (r - s) % n) for r in range(n)]
#         for r in range(n):
#             parts[(r + 1) % n][(r - s) % n] += moved[r]
#     for s in range(n - 1):
#         moved = [send(r, (r + 1 - s) % n) for r in range(n)]
#         for r in range(n):
#             parts[(r + 1) % n][(r + 1 - s) % n] = moved[r]
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Our version, between real processes; a test checks that its sums and bytes are those of
# `dist.all_reduce`:

# %% [markdown] tags=["zh"]
# 我们的写法，跑在真实的进程之间；它的和与字节数都与 `dist.all_reduce` 一致（有测试为证）：

# %%
show_source(ring.ring_all_reduce)

# %%
p_sent.reveal(ring.ring_bytes(100, 4))

# %% [markdown] tags=["en"]
# Which is faster depends on the number of ranks and the amount of data. By these formulas, with
# 1,024 ranks, trees sum 1 MB fifty times as fast as the ring; for 1 GB, latency is only a tenth of
# the ring's time:

# %% [markdown] tags=["zh"]
# 哪种更快，取决于 rank 数和数据量。1,024 个 rank 时，按这些公式，1 MB 走树形的速度是走环的五十倍；1 GB 走环，延迟只占用时的十分之一：

# %%
show(figures.ways_to_sum())

# %% [markdown] tags=["en"]
# ## 5 · Buckets: send while computing
#
# The backward pass finishes the last layer's gradients first. DDP does not wait for the others: it
# collects gradients into **buckets** and starts a bucket's all-reduce as soon as it is full, while
# earlier layers still compute. Here is a real backward pass of `stdlib-gpt` on two ranks. This
# machine's memory is too fast a wire to learn from, so each all-reduce is slowed down to what it
# would take at 200 MB/s with 0.5 ms of latency per step, about the speed of a fast office network:

# %% [markdown] tags=["zh"]
# ## 5 · 桶：边算边发
#
# 反向传播最先算完最后一层的梯度。DDP 不会干等：它把梯度装进**桶**里，装满一个就开始 all-reduce，
# 而前面的层还在计算。下面是 `stdlib-gpt` 在两个 rank 上的一次真实反向传播。本机内存这条“链路”太快，看不出什么，
# 所以把每次 all-reduce 都拉长到 200 MB/s、每步延迟 0.5 ms 时所需的时间，大约相当于较快的办公网络：

# %% tags=["nbval-ignore-output"]
wire = buckets.Wire(latency_seconds=0.0005, bytes_per_second=200e6)
names = {bucket_mb: f"{bucket_mb} MiB", 25: "25 MiB", None: "DDP's default"}
traces = {}
for mb in names:
    arguments = PRESETS["stdlib-gpt"], job.ids, job.targets, mb, wire
    traces[mb] = pools[2].run(buckets.trace_on_rank, *arguments, timeout=120)[0]
show(figures.backward_pass(traces[bucket_mb], bucket_mb))

# %% [markdown] tags=["en"]
# What should we expect? Each transfer starts when its bucket is ready and the wire is free. It
# takes 2 (n - 1) latencies plus 2 (n - 1)/n times its bytes over the bandwidth. `transfers`
# computes just that.

# %% [markdown] tags=["zh"]
# 理论上应当如何？桶已就绪且链路空闲时开始传输，耗时为：2 (n - 1) × 延迟 + 2 (n - 1) / n × 字节数 / 带宽。`transfers` 实现的就是这些。

# %%
show_source(buckets.transfers)

# %% tags=["nbval-ignore-output"]
rows = []
for mb, trace in traces.items():
    ready = [transfer.ready for transfer in trace.transfers]
    sizes = [transfer.n_bytes for transfer in trace.transfers]
    predicted = buckets.Trace(trace.backward, buckets.transfers(ready, sizes, wire, 2))
    rows.append(
        {
            "bucket size": names[mb],
            "buckets": len(sizes),
            "first bucket (MiB)": sizes[0] / 2**20,
            "backward (ms)": 1e3 * trace.backward,
            "with transfers (ms)": 1e3 * trace.seconds,
            "predicted (ms)": 1e3 * predicted.seconds,
            "measured / predicted": trace.seconds / predicted.seconds,
            "hidden (%)": 100 * trace.hidden,
            "hidden, predicted (%)": 100 * predicted.hidden,
        }
    )
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# (If *measured / predicted* is above 1, or the backward pass takes longer with many buckets, the
# likely reason is that the all-reduces and the thread that emulates the wire compete with it for
# the same cores. On a GPU they have hardware of their own.)
#
# In buckets of 25 MiB, a model of 13 MB is a single bucket, and nothing hides its transfer. By
# default, DDP closes the first bucket at 1 MiB and the others at 25. Small buckets pay the latency
# more often, and on a ring this costs more the more ranks there are.
#
# The explorer below has 24 layers of 24 MiB, each with a backward pass of 4 ms; a bucket holds at
# least one layer, so nothing changes below 24 MiB. Find the best bucket size for a wire of 64
# Gbit/s, then for 1,024 ranks: where does it move, and where with trees? With which wires does the
# size no longer matter?

# %% [markdown] tags=["zh"]
# （如果“实测 / 预测”大于 1，或桶多时反向传播变长，多半是因为 all-reduce 和模拟链路的线程与反向传播争抢同样的核。
# 在 GPU 上，它们各有专用的硬件。）
#
# 桶设为 25 MiB 时，13 MB 的模型只有一个桶，传输全都藏不住。不设大小时，DDP 的第一个桶装到 1 MiB 就发，其余的装到 25 MiB。
# 桶太小，又要反复付延迟；走环时 rank 越多，代价越大。下面是 24 层，每层 24 MiB、反向 4 毫秒；一个桶至少装一层，
# 所以小于 24 MiB 时没有变化。先为 64 Gbit/s 的链路找出最合适的大小，再换成 1,024 个 rank：它变成多少？走树形时呢？
# 什么样的链路上，桶的大小就无关紧要了？

# %%
explore(figures.overlap, frames=9)

# %% [markdown] tags=["en"]
# ## 6 · What breaks: ranks that differ
#
# None of these raises an error. Each row changes one thing and shows how far the averaged gradients
# are from those of one process. (The two batch norm rows use another model, a small classifier of
# digits.)

# %% [markdown] tags=["zh"]
# ## 6 · 何时失效：rank 之间有了差别
#
# 下面每一种都不会报错。每行只改动一处，看平均后的梯度与单进程相差多少。
# （BatchNorm 两行用的是另一个模型：一个小的手写数字分类器。）

# %% tags=["nbval-ignore-output"]
errors = measure.gradient_errors(pools[4], job, one)
repairs = {
    "uneven shares": "weight each loss by its rows",
    "different seeds, averaged by hand": "DDP sends rank 0's weights first",
    "batch norm over a rank's own rows": "sum over ranks (SyncBatchNorm)",
    "a forgotten sampler": "DistributedSampler and set_epoch",
}
rows = [
    {
        "what differs": what,
        "gradient difference": error,
        "wrong": error > verdicts.SAME,
        "repair": repairs.get(what),
    }
    for what, error in errors.items()
]
table(rows, kind="measured", digits=2)

# %% [markdown] tags=["en"]
# - **Uneven shares.** DDP averages over ranks, not over rows; the last batch of an epoch is often
#   shorter.
# - **A seed.** DDP sends rank 0's weights to all ranks before it starts, so different seeds do no
#   harm. With averaging by hand, every rank trains a model of its own, with a gradient that belongs
#   to none of them.
# - **Batch norm** normalizes with the statistics of the rows it sees. The repair sums these
#   statistics, and their gradients, over ranks. (LayerNorm looks at one row only: Transformers are
#   safe.)
# - **A forgotten sampler.** If all ranks shuffle with the same seed, every rank reads the same
#   rows: n ranks do the work of one, and the loss curve still looks fine:

# %% [markdown] tags=["zh"]
# - **行数不等。** DDP 按 rank 平均，而不是按行平均；一个 epoch 的最后一批常常短一截。
# - **随机种子。** DDP 开始前会把 rank 0 的权重发给大家，种子不同也无妨。手写平均时，每个 rank 都在训练自己的模型，
#   用的梯度却不属于其中任何一个。
# - **BatchNorm** 用它看到的那些行的统计量来归一化。修复的办法是，统计量及其梯度都跨 rank 求和。
#   （LayerNorm 只看一行，Transformer 不受影响。）
# - **忘了采样器。** 各 rank 用同一个种子打乱时，每个 rank 都读同样的行：n 个 rank 干一个 rank 的活，损失曲线看上去却一切正常：

# %%
rows = []
for sampler in (True, False):
    by_rank = data_parallel.sampled_rows(1024, 4, sampler)
    in_step = {row for rank in by_rank for row in rank[:8]}
    rows.append(
        {
            "DistributedSampler": sampler,
            "ranks": 4,
            "rows per rank and step": 8,
            "different rows per step": len(in_step),
            "steps per epoch": len(by_rank[0]) // 8,
        }
    )
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 7 · ZeRO: why hold everything n times?
#
# In plain data parallelism, each rank holds all weights, all gradients and all of Adam's state: in
# fp32, 4 + 4 + 8 = 16 bytes per parameter. But a rank that updates only an nth of the weights needs
# only an nth of the optimizer state. For N parameters on n ranks:
#
# | stage | cut into n | bytes per rank | n = 4, per parameter |
# |---|---|---|---|
# | 0 (DDP) | nothing | 16 N | 16 |
# | 1 | optimizer state | (8 + 8/n) N | 10 |
# | 2 | and gradients | (4 + 12/n) N | 7 |
# | 3 | and weights | 16 N / n | 4 |
#
# Each stage runs on real ranks: stage 1 with `ZeroRedundancyOptimizer`, stages 2 and 3 with
# `fully_shard` from FSDP2, the second version of PyTorch's fully sharded data parallelism.

# %% [markdown] tags=["zh"]
# ## 7 · ZeRO：何必存 n 份？
#
# 普通数据并行里，每个 rank 都存着全部权重、全部梯度和 Adam 的全部状态：fp32 下每参数 4 + 4 + 8 = 16 字节。
# 可是如果一个 rank 只更新 1/n 的权重，它就只需要 1/n 的优化器状态。N 个参数、n 个 rank 时：
#
# | 阶段 | 切成 n 份的 | 每个 rank 的字节数 | n = 4 时每参数 |
# |---|---|---|---|
# | 0（DDP） | 无 | 16 N | 16 |
# | 1 | 优化器状态 | (8 + 8/n) N | 10 |
# | 2 | 再加梯度 | (4 + 12/n) N | 7 |
# | 3 | 再加权重 | 16 N / n | 4 |
#
# 每个阶段都在真实的 rank 上运行：阶段 1 用 `ZeroRedundancyOptimizer`，阶段 2、3 用 FSDP2（PyTorch 完全分片数据并行的第二版）的 `fully_shard`。

# %%
show_source(zero.shard_model)

# %%
by_stage = {n: {} for n in pools}
for n, pool in pools.items():
    for stage in zero.STAGES:
        staged = zero.Job(job.config, job.ids, job.targets, stage)
        by_stage[n][stage] = pool.run(zero.on_rank, staged, timeout=120)
n_params = cost.num_params(job.config)

# %%
rows = []
for n, stages in by_stage.items():
    for stage, ranks in stages.items():
        most = max(ranks, key=measure.state_bytes)
        state = measure.state_bytes(most)
        formula = cost.model_state_bytes(n_params, n, stage, **zero.FP32_ADAM)
        rows.append(
            {
                "ranks": n,
                "stage": stage,
                "weights (MB)": most.weights / 1e6,
                "gradients (MB)": most.gradients / 1e6,
                "optimizer state (MB)": most.optimizer / 1e6,
                "gathered (MB)": most.gathered / 1e6,
                "state (MB)": state / 1e6,
                "formula (MB)": formula / 1e6,
                "state / formula": state / formula,
            }
        )
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# At stage 2, FSDP2 holds 14 to 20 % more than the paper's formula: between the forward and the
# backward pass, a rank keeps its own shard *beside* the gathered weights. Stage 1's optimizer deals
# out whole parameter tensors, so with four ranks the fullest rank holds a few per cent more
# optimizer state than an equal share.
#
# Do all stages still train the same model? And how much do they send?

# %% [markdown] tags=["zh"]
# 阶段 2 里，FSDP2 存的比论文公式多 14% 到 20%：在前向和反向之间，rank 自己的那份分片与收集来的完整权重*并存*。
# 阶段 1 的优化器以整个参数张量为单位分派，所以 4 个 rank 时，最满的一个存的优化器状态比平均份额多百分之几。
#
# 它们训练的还是同一个模型吗？通信上又要付出什么？

# %% tags=["nbval-ignore-output"]
rows = []
for stage, ranks in by_stage[4].items():
    apart = [
        abs(loss - plain)
        for rank, ddp in zip(ranks, by_stage[4][0], strict=True)
        for loss, plain in zip(rank.losses, ddp.losses, strict=True)
    ]
    rows.append(
        {
            "stage": stage,
            "final loss, rank 0": round(ranks[0].losses[-1], 3),
            "largest difference from DDP (nats)": max(apart),
            "units sent (measured)": max(r.sent for r in ranks) / (3 / 4 * 4 * n_params),
            "units sent (paper)": 3 if stage == 3 else 2,
        }
    )
table(rows)

# %% [markdown] tags=["en"]
# The table counts bytes sent in units of (n - 1)/n of all weights. In the paper, stages 1 and 2
# send what DDP sends, and stage 3 half as much again, because the weights are gathered once more
# for the backward pass. Here, stages 1 to 3 send one unit more than in the paper, for two reasons.
# Stage 1: `ZeroRedundancyOptimizer` builds on DDP, which all-reduces all gradients; it then
# broadcasts the new weights. That is so on any backend, NCCL too. Stages 2 and 3: gloo has no reduce-scatter of its own
# and gives every rank the whole sum (a test counts the bytes); NCCL has one.
#
# State is not all that takes memory. A whole step, activations included:

# %% [markdown] tags=["zh"]
# 发送量以全部权重的 (n - 1)/n 为单位。按论文，阶段 1、2 的通信量与 DDP 相同，阶段 3 多一半，因为反向传播前还要再收集一次权重。
# 这里阶段 1 到 3 都多出一个单位，原因有二。阶段 1：`ZeroRedundancyOptimizer` 建立在 DDP 之上，DDP 对全部梯度做 all-reduce，之后还要广播新权重；
# 这与后端无关，NCCL 上也一样。阶段 2、3：gloo 没有真正的 reduce-scatter，而是让每个 rank 都得到全部的和（有测试为证）；NCCL 则有。
#
# 只看状态还不够。算上激活值的完整一步：

# %% tags=["nbval-ignore-output"]
step = figures.stages(by_stage[4])
p_zero.reveal(step.layout.meta["ZeRO-3"])
show(step)

# %% [markdown] tags=["en"]
# No stage shards the activations. With more sequences they fill most of the bar. ZeRO saves at most
# the state that it shards, so its savings fade beside them. (With few sequences it saves less than
# that, because the layer gathered at the time takes memory too.) To reduce activations, use
# recomputation or the splits of notebook 13.

# %% [markdown] tags=["zh"]
# 哪个阶段都不切分激活值。序列越多，激活值占得越多；而 ZeRO 省下的至多是它切掉的那部分状态
# （序列少时还要少些，因为临时收集来的那一层权重也占内存），相比之下就越来越不起眼。
# （要减少激活值，得靠重计算和第 13 篇的切法。）

# %% tags=["nbval-ignore-output"]
by_batch = measure.held_by_batch(pools[4])
show(figures.batches(by_batch))

# %% [markdown] tags=["en"]
# The paper's own table, in GB per device, for 7.5 billion parameters with mixed-precision Adam (16
# bytes per parameter):

# %% [markdown] tags=["zh"]
# 论文自己的表：每台设备的 GB 数，75 亿参数，混合精度 Adam（每参数 16 字节）：

# %%
rows = []
for row in data.read_published("zero"):
    size, n = 1e9 * row["params_billions"], row["dp_degree"]
    cells = {"devices": n}
    for stage in (1, 2, 3):
        paper = row[f"stage{stage}_gb"]
        formula = cost.model_state_bytes(size, n, stage) / 1e9
        assert abs(formula - paper) < 0.06
        cells |= {f"stage {stage}, paper (GB)": paper, f"stage {stage}, formula (GB)": formula}
    rows.append(cells)
table(rows)

# %% [markdown] tags=["en"]
# **ZeRO is not model parallelism.** The article names ZeRO as the example of splitting a model's
# layers over devices. But it splits only what is *stored*: every rank still computes every layer,
# on its own rows:

# %% [markdown] tags=["zh"]
# **ZeRO 不是模型并行。** 文章把 ZeRO 当作“按层切分模型”的例子。其实它切分的只是*存储*，每个 rank 仍要用自己的行计算每一层：

# %%
headers = ("method", "weights held", "layers computed", "rows", "sent")
ways = [
    ("data parallel", "all", "all", "1/4", "gradients"),
    ("ZeRO-3", "1/4", "all", "1/4", "gradients and weights"),
    ("pipeline parallel", "1/4", "1/4", "all", "activations between layers"),
    ("tensor parallel", "1/4", "1/4 of each", "all", "activations inside layers"),
]
table([dict(zip(headers, way, strict=True)) for way in ways])

# %% [markdown] tags=["en"]
# ## 8 · Explore: which card does it take?
#
# Find the smallest number of ranks that holds GPT-3's 175 billion parameters on cards of 80 GB. At
# stage 2, how many GB per card always remain, however many ranks there are, and why? At stage 3,
# what do you gain from an optimizer with less state?
#
# `deepseek-v3` has 671 billion parameters, of which a token uses only 37.6 billion (37 by its
# makers' count; here the whole input embedding counts): it passes through a few of many
# feed-forward networks, the *experts*. But any expert may be chosen, so the state of all of them is
# kept: 10.7 TB at 16 bytes per parameter. At stage 2, every rank holds all the weights, 1.3 TB in
# 16 bits, however many ranks there are. At stage 3, the state fits on an H100 ("80 GB", 85.9 · 10⁹
# bytes) from 125 ranks on, not counting activations. (Its makers also split experts and layers over
# devices: ZeRO is not the only cut.)

# %% [markdown] tags=["zh"]
# ## 8 · 探索：需要什么样的卡？
#
# 用 80 GB 的卡放下 GPT-3 的 1,750 亿参数，最少要多少个 rank？rank 再多，阶段 2 的每卡内存也降不到多少 GB 以下？为什么？
# 在阶段 3，换一个更省内存的优化器有什么好处？
#
# `deepseek-v3` 共 6,710 亿参数，一个 token 只用到 376 亿（官方称 370 亿；这里把输入嵌入表整个计入），
# 因为前馈网络有许多个，称为*专家*，每个 token 只经过其中几个。但每个专家都可能被选中，所以全部专家的状态都要存：
# 按每参数 16 字节，共 10.7 TB。阶段 2 时，不论有多少个 rank，每个 rank 都完整存着 16 比特的权重，共 1.3 TB；
# 阶段 3 从 125 个 rank 起才放得进 H100（标称 80 GB，即 85.9 · 10⁹ 字节），还没算激活值。
# （实际训练时还把专家和层分到各设备上：ZeRO 并不是唯一的切法。）

# %%
explore(figures.cards, frames=11)

# %% [markdown] tags=["en"]
# ## 9 · Verdicts

# %% [markdown] tags=["zh"]
# ## 9 · 结论

# %% tags=["nbval-ignore-output"]
evidence = verdicts.equal_evidence(comparisons, errors)
lab.verdict("ddp-equal", verdicts.ddp_equal(evidence))

# %% tags=["nbval-ignore-output"]
evidence = verdicts.zero_evidence(by_stage, by_batch)
lab.verdict("zero-memory", verdicts.zero_memory(evidence))

# %%
for pool in pools.values():
    pool.close()

# %% [markdown] tags=["en"]
# ## 10 · Exercises
#
# **12-2 (a target).** Twelve layers of 1 MiB, with backward passes of 20 ms each, run on two real
# ranks, over a wire with 15 ms of latency per step and 150 MB/s. In buckets of 25 MiB, everything
# is sent only at the end. Choose a bucket size in MiB with which ranks wait for the wire at most
# 0.55 times as long as they do then.
#
# <details><summary>Hint</summary>After the last layer, one bucket still has to be sent: two
# latencies plus its bytes. Small buckets make this short; but if sending a bucket takes longer than
# computing its layers, buckets queue up.</details>

# %% [markdown] tags=["zh"]
# ## 10 · 练习
#
# **12-2（挑战题）。** 12 层，每层 1 MiB，反向传播各 20 ms，跑在两个真实的 rank 上；链路每步延迟 15 ms、带宽 150 MB/s。
# 桶为 25 MiB 时，全部要等到最后才发。请选一个桶的大小（MiB），让 rank 等链路的时间不超过那时的 0.55 倍。
#
# <details><summary>提示</summary>最后一层算完后，还有一个桶要走：两次延迟加它的字节。桶小，这段就短；
# 但若一个桶的传输比它那几层的计算还久，后面的桶就要排队。</details>

# %% tags=["exercise", "ex-12-2"]
answer_2 = ...  # a number of MiB

# %%
check("12-2", answer_2)

# %% [markdown] tags=["en", "solution", "ex-12-2"]
# <details><summary>Solution</summary>
#
# ```python
# answer_2 = 3
# ```
#
# A bucket of k layers takes 30 + 7 k ms to send and can hide behind 20 k ms of computing, so from
# k = 3 on a full bucket does not delay the next full one. If k also divides the 12 layers, the
# last bucket is full too; of these sizes, k = 3 has the shortest last bucket.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-12-2"]
# <details><summary>答案</summary>
#
# ```python
# answer_2 = 3
# ```
#
# 装 k 层的桶要传 30 + 7 k 毫秒，可以藏在 20 k 毫秒的计算后面：从 k = 3 起，装满的桶不会耽误下一个装满的桶，
# 而 12 层正好装满四个；在 k ≥ 3 且整除 12 的大小里，k = 3 的最后一个桶最短。
#
# </details>

# %% [markdown] tags=["en"]
# **12-3 (open: beat `ddp-equal`).** There, ranks send whole gradients. Send at most an
# eighth of those bytes. Write `answer_3 = (encode, decode)`: `encode(gradient, key)` returns a
# tuple of tensors, which is all that is sent, and `decode(payload, shape)` turns it back into a
# gradient. `key` is (rank, parameter's name), in case you want to remember something. Four ranks,
# simulated by one process, train for 24 steps; the mean loss of the last 8 may be at most 0.05 nats
# higher than with whole gradients. (If your answer remembers something, run its cell again before
# each check.) How few bytes are enough?
#
# <details><summary>Hint</summary>Send the twentieth of the values that is largest in magnitude,
# with their positions, and add what was not sent to the next step's gradient.</details>

# %% [markdown] tags=["zh"]
# **12-3（开放题：推翻 `ddp-equal`）。** 那里的 rank 发送完整的梯度。请最多只发其字节数的八分之一。写出 `answer_3 = (encode, decode)`：
# `encode(gradient, key)` 给出一个张量元组，即发送的全部内容；`decode(payload, shape)` 再把它变回梯度。
# `key` 是（rank，参数名），想记住点什么时可以用。4 个 rank 由一个进程模拟，训练 24 步；最后 8 步的平均损失
# 最多比发送完整梯度时高 0.05 nat。（如果你的答案会记住东西，每次检查前请先重新运行它的单元格。）你最少能用多少字节？
#
# <details><summary>提示</summary>只发绝对值最大的二十分之一和它们的位置，没发出去的累加到下一步的梯度上。</details>

# %% tags=["exercise", "ex-12-3"]
answer_3 = ...  # (encode, decode)

# %%
check("12-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-12-3"]
# <details><summary>Solution</summary>
#
# ```python
# import torch
#
# left = {}
#
#
# def encode(gradient, key):
#     total = (gradient + left.get(key, 0)).flatten()
#     at = total.abs().topk(max(1, len(total) // 20)).indices
#     left[key] = total.index_fill(0, at, 0).view_as(gradient)
#     return total[at], at.int()
#
#
# def decode(payload, shape):
#     values, at = payload
#     return torch.zeros(shape.numel()).index_put((at.long(),), values).view(shape)
#
#
# answer_3 = encode, decode
# ```
#
# This is top-k sparsification with error feedback. The price: each rank sends different positions,
# so the sum over ranks is no longer a plain all-reduce.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-12-3"]
# <details><summary>答案</summary>
#
# ```python
# import torch
#
# left = {}
#
#
# def encode(gradient, key):
#     total = (gradient + left.get(key, 0)).flatten()
#     at = total.abs().topk(max(1, len(total) // 20)).indices
#     left[key] = total.index_fill(0, at, 0).view_as(gradient)
#     return total[at], at.int()
#
#
# def decode(payload, shape):
#     values, at = payload
#     return torch.zeros(shape.numel()).index_put((at.long(),), values).view(shape)
#
#
# answer_3 = encode, decode
# ```
#
# 这就是带误差反馈的 top-k 稀疏化。代价是：各 rank 发的位置不同，求和不再是普通的 all-reduce。
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - The average of the ranks' gradients is the gradient of the whole batch if shares are equal or
#   weighted and nothing looks across the batch. DDP equals one process up to rounding.
# - In a sum round the ring, each rank sends 2 (n - 1)/n of the bytes: never more than twice, but in
#   2 (n - 1) steps.
# - Buckets hide transfers behind the backward pass; the last one is always exposed.
# - ZeRO is data parallelism that, stage by stage, stores more of its state only once: 16 (DDP), 10,
#   7, 4 bytes per parameter on four ranks. It does not shard activations, and stage 3 sends half as
#   much again as DDP (by the paper; here, over gloo, twice as much as DDP).
# - On several machines: `docs/many-machines.md` starts the same training with `torchrun`.
#
# **References.** Li et al. 2020, *PyTorch Distributed*, arXiv:2006.15704. Patarasuk & Yuan 2009,
# *Bandwidth optimal all-reduce algorithms*. Sanders et al. 2009, *Two-tree algorithms for full bandwidth
# broadcast, reduction and scan*. Rajbhandari et al. 2020, *ZeRO*, arXiv:1910.02054. Zhao
# et al. 2023, *PyTorch FSDP*, arXiv:2304.11277. Stich et al. 2018, *Sparsified SGD with Memory*,
# arXiv:1809.07599.
#
# **Next:** [13 · Model and pipeline parallelism](13_pipeline_parallel.ipynb): cutting the model itself.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 只要各份行数相等（或加权），且模型里没有跨样本的运算，梯度的平均就是整个批次的梯度。DDP 与单进程只差舍入误差。
# - 沿环求和，每个 rank 发送总字节数的 2 (n - 1)/n，不会超过两倍，但要走 2 (n - 1) 步。
# - 桶把传输藏在反向传播背后；最后一个桶总是藏不住。
# - ZeRO 仍是数据并行，只是逐步让各种状态只存一份：4 个 rank 上每参数 16（DDP）、10、7、4 字节。它不切分激活值，阶段 3 还要多一半的通信量（按论文；在这里的 gloo 上是 DDP 的两倍）。
# - 要换到多台机器，见 `docs/many-machines.md`：用 `torchrun` 启动同样的训练。
#
# **参考文献。** Li 等 2020，*PyTorch Distributed*，arXiv:2006.15704。Patarasuk & Yuan 2009，
# *Bandwidth optimal all-reduce algorithms*。Sanders 等 2009，*Two-tree algorithms for full bandwidth
# broadcast, reduction and scan*。Rajbhandari 等 2020，*ZeRO*，arXiv:1910.02054。Zhao 等 2023，
# *PyTorch FSDP*，arXiv:2304.11277。Stich 等 2018，*Sparsified SGD with Memory*，arXiv:1809.07599。
#
# **下一篇：** [13 · 模型并行与流水线并行](13_pipeline_parallel.ipynb)：把模型本身切开。
