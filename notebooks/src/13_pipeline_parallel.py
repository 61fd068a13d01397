# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 13 · Model and pipeline parallelism
#
# A model that does not fit on one device has to be cut. Cut between its layers, each device gets
# some of them, and the batch passes through like a product along an assembly line: a **pipeline**.
# Cut inside its layers, each device gets a piece of every matrix: **tensor parallelism**. Both
# compute the same model. They differ in what they send and in how long devices wait.
#
# | | |
# |---|---|
# | **Claims** | `model-parallel`, `gpipe-throughput`, `pipe-balance`, `microbatch-bubble` |
# | **Time** | 45 minutes; all cells together run in under 60 seconds, offline, on two cores |
# | **Afterwards you can** | cut a matrix product so that ranks send the least; derive the bubble; read a Gantt chart of a pipeline and name its schedule; write a schedule of your own; say why a published gain is not the ideal one; split unequal layers; choose tensor x pipeline x data for a model |

# %% [markdown] tags=["zh"]
# # 13 · 模型并行与流水线并行
#
# 一台设备放不下的模型，就得切开。在层与层之间切，每台设备分到若干层，批次像产品一样沿生产线流过：**流水线**。
# 在层内部切，每台设备分到每个矩阵的一块：**张量并行**。两种切法算的是同一个模型，区别在于通信什么，以及设备要等多久。
#
# | | |
# |---|---|
# | **论断** | `model-parallel`、`gpipe-throughput`、`pipe-balance`、`microbatch-bubble` |
# | **用时** | 45 分钟；全部单元格合计运行不到 60 秒，无需联网，两个核即可 |
# | **学完之后** | 能把矩阵乘法切成通信最少的样子；能推导气泡；能看懂流水线的甘特图并说出是哪种调度；能自己写一种调度；能说明论文报告的加速为何与理想值不同；能切分不均匀的层；能为一个模型选定“张量 × 流水线 × 数据”的切法 |

# %% tags=["parameters"]
language = "en"
batch_size = 8  # sequences of the batch, 4 to 32 in steps of 4
seq_len = 64  # tokens of each, 16 to 128
n_microbatches = 8  # of the drawn pipeline, 4 to 16

# %%
from statistics import median

from efflab import cost, data, lab
from efflab.distributed import gpipe, partition, stages, tensor_orders, tensor_parallel
from efflab.distributed.data_parallel import shares
from efflab.distributed.launch import RankPool
from efflab.distributed.pipeline import simulate
from efflab.distributed.schedules import SCHEDULES
from efflab.estimate import of_median
from efflab.lab import check, explore, predict, show, show_source, table
from efflab_rooms import texts
from efflab_rooms.pipeline_parallel import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("13_pipeline_parallel", exercises.EXERCISES, texts("pipeline_parallel"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Each of four devices holds a quarter of the layers, one *stage* of the pipeline. A batch goes
# through in one piece, forward and then back. Then the batch is cut into eight *micro-batches*:
# equal numbers of its sequences, which pass through the stages one after the other; the gradient is
# the mean of theirs.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 四台设备各有四分之一的层，即流水线的一个*阶段*。一个批次不切分，整体前向流过去，再反向流回来。
# 然后把批次切成 8 个*微批次*：每个含同样多的序列，依次流过各阶段；梯度取各微批次的平均。

# %%
p_idle = predict("What percentage of the time is a device idle?", "%")

# %%
p_cut = predict("And if the batch is cut into 8 micro-batches?", "%")

# %% [markdown] tags=["en"]
# ## 2 · Cut inside: column, then row
#
# A feed-forward network is Y = GELU(X A) B. Cut A by **columns**: rank i computes GELU(X A_i), its
# own hidden units, from the whole X; nothing is sent. Cut B by **rows**: rank i already has exactly
# the inputs that its rows of B need, and computes a partial sum of Y. One all-reduce adds the
# partial sums up, and the forward pass sends nothing else. The backward pass has one more
# all-reduce, for X's gradient; the table below counts both passes.
#
# With A cut by rows instead, each rank has a partial sum of X A. Since GELU(a + b) is not
# GELU(a) + GELU(b), the all-reduce has to come before the activation, where the sum is four times
# as wide as Y.

# %% [markdown] tags=["zh"]
# ## 2 · 在层内切：先列后行
#
# 前馈层是 Y = GELU(X A) B。把 A 按**列**切：rank i 用完整的 X 算 GELU(X A_i)，得到自己的隐藏单元，不需要通信。
# 把 B 按**行**切：rank i 手里正好是它那几行 B 所需的输入，得到 Y 的一个部分和；用一次 all-reduce 加起来，前向的通信就只有这些；
# 反向还有一次，用于 X 的梯度，下表把前向和反向都计入。
# 反过来，A 按行切，每个 rank 得到 X A 的一个部分和，而 GELU(a + b) 不等于 GELU(a) + GELU(b)：
# 必须先求和再激活，而求和处的宽度是 Y 的四倍。

# %%
show_source(tensor_parallel.ColumnParallelLinear)
show_source(tensor_parallel.RowParallelLinear)

# %% tags=["nbval-ignore-output"]
pools = {n: RankPool(n) for n in (2, 4)}
sizes = (64, 256, 512)  # of the model, of the hidden layer, tokens
least = tensor_orders.traffic("column-row", *sizes, 2).n_bytes
errors, rows = {}, []
for order in tensor_orders.ORDERS:
    ranks = pools[2].run(tensor_orders.on_rank, order, *sizes, timeout=120)
    traffic = tensor_orders.traffic(order, *sizes, 2)
    errors[order] = max(rank.output_error for rank in ranks)
    rows.append(
        {
            "cut of A and B": order,
            "all-reduces": traffic.all_reduces,
            "all-gathers": traffic.all_gathers,
            "output difference": errors[order],
            "sent / column-row": max(rank.sent for rank in ranks) / least,
            "formula": traffic.n_bytes / least,
        }
    )
table(rows, kind="measured", digits=2)

# %% [markdown] tags=["en"]
# The row "summed late" skips the sum before the activation: it sends less, and its output is wrong.
# Bytes sent are the Linux kernel's count (other systems keep no such count: there the cell above
# stops with a rank's `OSError`).
#
# Now the whole model on real ranks, cut by our code and by torch's `parallelize_module`, against
# one process. Attention is cut by heads, again columns first and then rows: queries, keys and
# values by columns, the output by rows.

# %% [markdown] tags=["zh"]
# “求和太晚”一行略去了激活之前的求和：通信少，但结果是错的。发送量是 Linux 内核的统计
# （其他系统没有这项统计，上面的单元格会停下，报出 rank 的 `OSError`）。再看整个模型：我们的写法和 torch 的
# `parallelize_module` 都跑在真实的 rank 上，与单进程比较。注意力按头切，同样是先列后行：查询、键、值按列，输出按行。

# %% tags=["nbval-ignore-output"]
windows = data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed=0)
inside = {}
for n, pool in pools.items():
    for method in tensor_parallel.METHODS:
        job = tensor_parallel.Job(measure.CONFIG, *windows, method)
        inside[n, method] = pool.run(tensor_parallel.on_rank, job, timeout=120)

# %% tags=["nbval-ignore-output"]
rows = []
for (n, method), ranks in inside.items():
    sent = max(rank.forward + rank.backward for rank in ranks)
    formula = 2 * tensor_parallel.wire_bytes(measure.CONFIG, batch_size * seq_len, n)
    n_params = max(rank.params for rank in ranks)
    rows.append(
        {
            "ranks": n,
            "implementation": method,
            "logit difference": max(rank.logits_error for rank in ranks),
            "gradient difference": max(rank.gradients_error for rank in ranks),
            "parameters per rank / total": n_params / cost.num_params(measure.CONFIG),
            "sent per rank (MB)": sent / 1e6,
            "sent / formula": sent / formula,
        }
    )
table(rows, kind="measured", digits=2)

# %% [markdown] tags=["en"]
# Each layer needs two all-reduces forward and two back, whatever the number of ranks, and every
# token waits for them: that is why this cut stays within a machine, where links are fast.
# Embeddings and norms stay whole here, so with four ranks each holds more than a quarter of the
# parameters.
#
# ## 3 · Cut between: the same model again
#
# PyTorch's pipeline on 2 and 4 ranks, with the batch cut into four micro-batches, against one
# process. We run two schedules: `gpipe` does all forward passes and then all backward passes;
# `1f1b` alternates one forward and one backward pass (section 5). A rank *holds* a micro-batch as
# long as it keeps its activations, from its forward pass to its backward pass; the table gives the
# most held at once:

# %% [markdown] tags=["zh"]
# 每层前向两次 all-reduce，反向两次，次数与 rank 数无关，而且每个 token 都要等它完成：所以这种切法只用在一台机器内部，那里链路快。
# 这里嵌入和归一化没有切，所以四个 rank 时每个的参数不止四分之一。
#
# ## 3 · 在层间切：还是同一个模型
#
# PyTorch 的流水线，2 个和 4 个 rank，批次切成四个微批次，与单进程比较。两种次序：`gpipe` 先做完全部前向再做反向，
# `1f1b` 一次前向、一次反向交替（第 5 节）。从一个微批次的前向到它的反向，rank 都要*保存*它的激活值；表中是同时保存的最多个数：

# %% tags=["nbval-ignore-output"]
alone = stages.Job(measure.CONFIG, *windows, 1).alone()
between = {}
for n, pool in pools.items():
    for schedule in ("gpipe", "1f1b"):
        job = stages.Job(measure.CONFIG, *windows, 4, schedule)
        between[n, schedule] = pool.run(stages.on_rank, job, timeout=120)

# %% tags=["nbval-ignore-output"]
rows = []
for (n, schedule), ranks in between.items():
    (loss,) = (rank.loss for rank in ranks if rank.loss is not None)  # where the last layer is
    rows.append(
        {
            "ranks": n,
            "schedule": schedule,
            "loss difference": abs(loss - alone.loss),
            "gradient difference": measure.gradient_distance(ranks, alone),
            "weights per rank / total": max(r.weight_bytes for r in ranks) / alone.weight_bytes,
            "micro-batches held": max(rank.trace.held for rank in ranks),
        }
    )
table(rows, kind="measured", digits=2)

# %% [markdown] tags=["en"]
# All runs equal one process up to rounding. (The first and the last rank each hold a copy of the
# tied token embedding, which weighs heavily in a small model: the fuller of two ranks holds 0.63 of
# the weights, and the fullest of four 0.45.)
#
# ## 4 · The bubble
#
# Let there be K stages and M micro-batches, and let a stage take f seconds forward and b back for a
# micro-batch. In GPipe the first stage sends M forward passes into the pipeline. The last of them
# still has to pass K - 1 stages, which takes (K - 1) f seconds, before gradients start back. The
# first gradient passes K - 1 stages on its way, which takes (K - 1) b. So the first stage waits
# (K - 1)(f + b) seconds, in which it could have done K - 1 micro-batches. All other stages wait as
# long, at other times. Each stage works M (f + b) seconds.
#
# ### Your turn
#
# **13-1.** Write `bubble(K, M)`: the fraction of the time that a stage spends waiting.
#
# <details><summary>Hint</summary>A stage computes for M micro-batches and waits as long as K - 1 of
# them take.</details>

# %% [markdown] tags=["zh"]
# 与单进程只差舍入误差。（首末两个 rank 各存一份共享的嵌入表，小模型因此吃亏：两个 rank 时，较满的存全部权重的 0.63；四个时，最满的存 0.45。）
#
# ## 4 · 气泡
#
# 设有 K 个阶段，每个阶段处理一个微批次，前向要 f 秒、反向要 b 秒，共 M 个微批次。在 GPipe 里，第一个阶段把 M 次前向送上流水线。
# 其中最后一次还要穿过其余 K - 1 个阶段，用 (K - 1) f 秒，之后梯度才开始返回；第一个梯度回来要穿过 K - 1 个阶段，
# 用 (K - 1) b 秒。所以第一个阶段等 (K - 1)(f + b) 秒，这段时间本可以做 K - 1 个微批次；
# 其他阶段也一样，只是等的时刻不同。每个阶段工作 M (f + b) 秒。
#
# ### 动手
#
# **13-1.** 写出 `bubble(K, M)`：一个阶段空等的时间所占的比例。
#
# <details><summary>提示</summary>一个阶段计算 M 个微批次，空等的时间相当于 K - 1 个。</details>

# %% tags=["exercise", "ex-13-1"]
bubble = ...  # def bubble(K, M): ...

# %%
check("13-1", bubble)

# %% [markdown] tags=["solution", "ex-13-1"]
# <details><summary>Solution</summary>
#
# ```python
# def bubble(K, M):
#     return (K - 1) / (M + K - 1)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# With K stages and M micro-batches, the fraction of the time spent waiting is
#
# $$\text{bubble} = \frac{K-1}{M+K-1}$$
#
# (Huang et al. 2019, section 2.3).

# %% [markdown] tags=["zh"]
# K 个阶段、M 个微批次时，空等的时间所占的比例是
#
# $$\text{气泡} = \frac{K-1}{M+K-1}$$
#
# （Huang 等 2019，第 2.3 节）。

# %%
p_idle.reveal(100 * measure.bubble(4, 1))
p_cut.reveal(100 * measure.bubble(4, 8))

# %% [markdown] tags=["en"]
# ## 5 · Measure: ranks that compute, and ranks that sleep
#
# Two ranks fit on two cores. Here each multiplies matrices, twenty times forward and forty times
# back for a micro-batch, in PyTorch's real pipeline. The same batch is cut into two micro-batches
# in the upper chart and into eight in the lower. Each kind of pass has a colour, dark and light for
# alternate micro-batches. Grey is the bubble:

# %% [markdown] tags=["zh"]
# ## 5 · 实测：计算的 rank，休眠的 rank
#
# 两个 rank 正好用两个核。这里每个 rank 真的做矩阵乘法，一个微批次前向 20 次、反向 40 次，跑在 PyTorch 真实的流水线里。
# 批次相同，上图切成两份，下图切成八份；颜色区分前向和反向，深浅交替区分微批次，灰色就是气泡：

# %% tags=["nbval-ignore-output"]
steps, others = measure.compute_steps(pools[2])
times = measure.compare_steps(steps)
show(figures.computing_steps(steps))

# %% tags=["nbval-ignore-output"]
bubbles = measure.bubbles(steps)
rows = []
for name, (products, m) in measure.STEPS.items():
    real = of_median(bubbles[name])
    own = simulate(products, [2 * n for n in products], m)
    rows.append(
        {
            "matrix products per stage": " + ".join(map(str, products)),
            "micro-batches": m,
            "bubble, measured": real.mean,
            "low": real.low,
            "high": real.high,
            "bubble, simulated": own.bubble_fraction,
            "step (ms)": 1e3 * median(timeline.makespan for timeline in steps[name]),
        }
    )
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# (The table gives medians of seven interleaved repeats, with the 95 % interval of the median (*low*
# to *high*). The last row repeats the second: the difference between the two is this machine's
# noise. If other programs use the cores, ranks wait for them too, and the verdicts below stay
# undecided.)
#
# Handing data over takes time, and ranks are never quite equally fast, so real bubbles are larger
# than simulated ones. And a smaller bubble does not always mean a shorter step. By the bubble
# alone, eight micro-batches would take three quarters of the time of two; compare the column
# *step (ms)*. The step time multiplied by (1 - bubble) is the time spent computing: if it grows,
# small products cost more per row and use up what the smaller bubble saved.
#
# Four busy ranks on two cores would only show how they compete for the cores. So for more than two
# ranks, stages *sleep* instead of computing, 50 ms forward and 100 ms back, in PyTorch's real
# schedules on real processes. That is a simulation too: it tests order, waiting and hand-over, not
# computing. The upper chart shows what the ranks did, the lower one what our simulator predicts:

# %% [markdown] tags=["zh"]
# （取七次交错重复的中位数，以及中位数的 95% 区间。最后一行是第二行再测一遍：两者之差就是本机的噪声。
# 如果有其他程序占用这两个核，rank 还要等它们，下面的结论就是“未定”。）传递数据要花时间，两个 rank 的快慢也不会完全一样，所以真实的气泡更大。
# 而且气泡变小，一步并不一定变短。只按气泡算，8 个微批次应当只用 2 个时的四分之三；请比较“一步（ms）”一列。
# 一步 ×（1 − 气泡）就是计算所花的时间：如果它变长，说明小矩阵乘法摊到每一行的开销更大，把气泡省下的时间又吃掉了。
#
# 四个满载的 rank 挤在两个核上，看到的只会是争抢 CPU。所以 rank 更多时让各阶段*休眠*来代替计算：前向 50 ms，反向 100 ms，
# 跑在 PyTorch 真实的调度和真实的进程里。这也是一种模拟：检验的是次序、等待和传递，不是计算本身。
# 上图是实际执行的过程，下图是模拟器的结果：

# %% tags=["nbval-ignore-output"]
show(figures.real_step(pools[4], "gpipe", n_microbatches))

# %% tags=["nbval-ignore-output"]
show(figures.real_step(pools[4], "1f1b", n_microbatches))

# %% tags=["nbval-ignore-output"]
rows = []
for n, pool in pools.items():
    for schedule, m in (("gpipe", 4), ("gpipe", 8), ("1f1b", 8), ("interleaved", 8)):
        real, held = measure.run_step(pool, schedule, m)
        simulated = measure.simulate_step(n, schedule, m)
        rows.append(
            {
                "ranks": n,
                "schedule": schedule,
                "micro-batches": m,
                "bubble, sleeping ranks (measured)": real.bubble_fraction,
                "bubble, simulated": simulated.bubble_fraction,
                "difference": real.bubble_fraction - simulated.bubble_fraction,
                "held, sleeping ranks (measured)": held / real.chunks_per_stage,
                "held, simulated": max(simulated.peak_activations),
            }
        )
table(rows, kind="simulated")

# %% [markdown] tags=["en"]
# GPipe and 1F1B have the same bubble. 1F1B starts each backward pass as soon as it can, and a rank
# holds no more micro-batches than there are stages; in GPipe it holds all of them (in GPipe's
# paper, which recomputes the rest, only their inputs). So 1F1B can use more micro-batches, and that
# is how its bubble shrinks. *Interleaved* gives each rank several thin stages (here two): ranks wait
# less but transfer more. Holding a micro-batch in one of two thin stages counts as half a
# micro-batch, hence the fractions under *held*.
#
# ## 6 · Schedules
#
# A schedule is data: a list of tasks for each rank. The simulator runs any such lists by two rules:
# a rank does one task at a time, in order, and no task starts before its inputs have arrived. Two
# newer schedules:
#
# - **Zero-bubble** splits the backward pass into the part that the previous stage waits for (I) and
#   the part that nobody waits for (W), and fills gaps with W. (Here it is ZB-H1, the variant that
#   holds no more than 1F1B and keeps a third of its wait; variants that never wait hold about twice
#   as much.)
# - **DualPipe** sends micro-batches in at both ends, at the cost of two copies of the weights.
#
# Below, a forward pass takes 1, a backward pass 2, I and W 1 each; stage times in the exercises are
# those of forward passes, too.

# %% [markdown] tags=["zh"]
# GPipe 和 1F1B 的气泡一样大。1F1B 一有机会就做反向，同时保存的微批次不超过阶段数；GPipe 要全部保存（论文里用了重计算，只保存各微批次的输入）。
# 所以 1F1B 可以用更多的微批次，气泡正是这样变小的。交错式 1F1B（*interleaved*）让每个 rank 承担几个较薄的阶段（这里是两个）：等待变短，传输变多。
# 在两个薄阶段之一里保存一个微批次，只算半个，所以“保存数”会有小数。
#
# ## 6 · 调度
#
# 调度就是数据：每个 rank 的任务清单。模拟器只按两条规则执行：按顺序一次做一个；所需的数据没到就不能开始。
# 两种较新的调度：**零气泡**（zero-bubble；这里是 ZB-H1，保存的不比 1F1B 多，等待时间是它的三分之一；完全没有等待的变体，保存的约为两倍）
# 把反向拆成两部分：前一阶段在等的（I）和没有谁在等的（W），用 W 填补空隙；
# **DualPipe** 让微批次从两端进入，代价是权重存两份。下面一次前向用时 1，反向 2，I 和 W 各 1；练习里给出的也是前向的时间。

# %%
rows = []
for schedule in SCHEDULES:
    timeline = simulate([1.0] * 4, [2.0] * 4, 8, schedule)
    rows.append(
        {
            "schedule": schedule,
            "time (forward passes)": timeline.makespan,
            "bubble": timeline.bubble_fraction,
            "micro-batches held": max(timeline.peak_activations),
            "copies of the weights": 2 if schedule == "dualpipe" else 1,
        }
    )
table(rows, kind="simulated")

# %%
explore(figures.pipeline)

# %% [markdown] tags=["en"]
# Slow the second stage down: which schedule suffers least? Double the micro-batches until the
# bubble is under 5%: how many micro-batches does a rank then hold, in GPipe and in 1F1B?
#
# ### Your turn: a schedule of your own
#
# **13-2.** Write the orders of 4 ranks for 8 micro-batches: `answer_2[r]` is a list of `("F", i)`
# and `("B", i)`. They must be as fast as 1F1B, and no rank may hold more than 4 micro-batches at
# once. The simulator reports any task that is missing, duplicated or waits for ever.
#
# <details><summary>Hint</summary>Each rank first runs as many forward passes as there are ranks
# after it. From then on, forward and backward passes alternate.</details>

# %% [markdown] tags=["zh"]
# 把第二个阶段调慢：哪种调度受影响最小？把微批次不断加倍，直到气泡小于 5%：这时 GPipe 和 1F1B 的一个 rank 各要保存多少个微批次？
#
# ### 动手：自己的调度
#
# **13-2.** 为 4 个 rank、8 个微批次写出次序：`answer_2[r]` 是 `("F", i)` 和 `("B", i)` 的列表。
# 要和 1F1B 一样快，任何 rank 同时保存的微批次不超过 4 个。任务缺失、重复或永远等不到，模拟器都会指出来。
#
# <details><summary>提示</summary>每个 rank 先多跑几次前向，次数等于它后面的 rank 数；然后前向、反向交替。</details>

# %% tags=["exercise", "ex-13-2"]
answer_2 = ...  # [[("F", 0), ...], ...]

# %%
check("13-2", answer_2)

# %%
table(exercises.score_rows(answer_2), kind="simulated")

# %% [markdown] tags=["solution", "ex-13-2"]
# <details><summary>Solution</summary>
#
# ```python
# answer_2 = []
# for r in range(4):
#     ahead = 3 - r
#     order = [("F", i) for i in range(ahead)]
#     for i in range(8 - ahead):
#         order += [("F", ahead + i), ("B", i)]
#     answer_2.append(order + [("B", i) for i in range(8 - ahead, 8)])
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## 7 · Three to five times?
#
# On the left, what equal stages could reach without transfers or any other overhead. On the right,
# all gains in GPipe's paper, plotted against the ideal gain of each. A gain over *what*? Over the
# model's first row in its table: over two devices, not over one, and with one micro-batch in
# Table 2 but with 32 in Table 3:

# %% [markdown] tags=["zh"]
# ## 7 · 三到五倍？
#
# 左图：阶段均等、没有传输也没有其他开销时，能做到多少。右图：GPipe 论文测得的全部倍数（不含作为基线的各行），横轴是各行的理想倍数。
# 倍数是*相对谁*而言的？都以本表中同一模型的第一行为基线：基线是两台设备而不是一台，而且表 2 的基线用一个微批次，表 3 的用 32 个：

# %%
show(figures.gains())

# %%
rows = [
    {
        "model": row["model"],
        "stages": row["n_stages"],
        "micro-batches": row["n_microbatches"],
        "published gain (x)": row["throughput"],
        "ideal gain (x)": row["ideal"],
        "with recomputation": row["recomputed"],
        "published / ideal": row["over_ideal"],
    }
    for row in gpipe.gains()
]
table(rows, kind="published")

# %% [markdown] tags=["en"]
# Of the sixteen rows with several micro-batches, five lie between 3 and 5; the others range from
# 1.07 to 6.3. Even eight stages with 32 micro-batches do not guarantee such a gain: AmoebaNet on
# P100s reaches only 2.7.
#
# The bubble alone does not explain these gains:
#
# - With one micro-batch, it allows no gain, and yet eight devices reached 1.3 and 1.38.
# - With four micro-batches, the larger Transformer reaches 3.2 on four devices and 4.8 on eight,
#   where the bubble allows 2.29 and 2.91. The paper adjusted the batch size to the memory, and a
#   larger batch is the likely reason.
# - With 32 micro-batches, that Transformer's throughput becomes 3.5 times as high from two devices
#   to eight (1.8 to 6.3; the digits printed allow 3.4 to 3.6). The bubble gives 3.4. It gives 3.5
#   if, as in the paper, each stage recomputes its forward pass, partly in time in which it would
#   wait anyway (column *with recomputation*).
# - AmoebaNet's layers do not cut into equal stages, so in Table 2 it stays far below the ideal.
#
# ## 8 · Balance
#
# A pipeline moves at the pace of its slowest stage. Take ten equal layers and an output layer that
# takes four times as long, on four stages, with 16 micro-batches and 1F1B (times are in units of
# one layer's forward pass):

# %% [markdown] tags=["zh"]
# 有多个微批次的 16 行中，5 行落在 3 到 5 倍之间，全部的范围是 1.07 到 6.3。光有八个阶段和 32 个微批次，也不保证达到 3 倍：
# P100 上的 AmoebaNet 只有 2.7。
#
# 只凭气泡并不能解释这些数。只有一个微批次时，按气泡不该有任何提升，八台设备却做到了 1.3 和 1.38；
# 四个微批次时，较大的 Transformer 在四台和八台设备上达到 3.2 和 4.8，而按气泡只有 2.29 和 2.91。论文按内存大小调整了批次，批次更大可能就是原因。
# 32 个微批次时，这个 Transformer 从 2 台到 8 台，吞吐量变为 3.5 倍（1.8 到 6.3；这两个数只印到一位小数，所以应在 3.4 到 3.6 之间）：
# 气泡公式给出 3.4；若像论文那样每个阶段把前向重算一遍，其中一部分填进本来就要等待的时间，则是 3.5（“计入重计算”一列）。AmoebaNet 的层切不成均等的阶段，因此在表 2 里远低于理想值。
#
# ## 8 · 均衡
#
# 流水线的快慢由最慢的阶段决定。十个相同的层，再加一个耗时四倍的输出层，分成四个阶段，16 个微批次，1F1B
# （时间以一层的一次前向为单位）：

# %%
show_source(partition.best_split)

# %%
layers = [1.0] * 10 + [4.0]
splits = {
    "equal counts": shares(11, 4),
    "best split": partition.best_split(layers, 4),
}
makespans, rows = {}, []
for name, split in splits.items():
    seconds = partition.stage_seconds(layers, split)
    timeline = simulate(seconds, [2 * s for s in seconds], 16, "1f1b")
    makespans[name] = timeline.makespan
    rows.append(
        {
            "split": name,
            "layers per stage": " ".join(map(str, split)),
            "slowest stage": max(seconds),
            "time": makespans[name],
            "bubble": timeline.bubble_fraction,
        }
    )
table(rows, kind="simulated")

# %% [markdown] tags=["en"]
# Dynamic programming finds the best cut exactly, in a table of stages by layers. But it cannot cut
# inside a layer: the output layer is a stage by itself. (Megatron cuts it inside, with tensor
# parallelism.)
#
# What does one slow stage cost, and does it matter which one is slow? The total work stays the
# same, with 8 micro-batches:

# %% [markdown] tags=["zh"]
# 动态规划在一张“阶段 × 层”的表里精确求出最好的切法。但它切不开单独一层：输出层独占一个阶段。
# （Megatron 用张量并行把它在层内切开。）
#
# 一个慢的阶段会带来多大代价？与它的位置有没有关系？总工作量不变，8 个微批次：

# %%
show(figures.imbalance())

# %% tags=["nbval-ignore-output"]
rows = [
    {
        "matrix products per stage": " + ".join(map(str, measure.STEPS[name][0])),
        "time / balanced time": times.ratios[name].mean,
        "low": times.ratios[name].low,
        "high": times.ratios[name].high,
        "simulated": measure.simulate_products(name) / measure.simulate_products("many"),
    }
    for name in ("first-slow", "second-slow")
]
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# The slowest stage sets the pace, and the time grows with its excess over an equal share. In 1F1B,
# a slow last stage costs most; in GPipe, the place does not matter. **DualPipe** pays least: it
# gives rank r the stages r and K - 1 - r, so two ranks share the slow one. The intervals in the
# last table show whether two ranks that really compute pay too. The verdict widens them by the
# noise of the balanced step against itself (A/A): if one then lies below 1.05, the verdict's second
# part does not hold; otherwise, if one spans 1.05, it is undecided.
#
# ## 9 · All together: tensor x pipeline x data
#
# Given a model, devices and a batch, the planner tries every split that fits and takes the fastest.
# Below, the devices are A100s of 80 GB and the batch is 1,536 sequences of 2,048 tokens (or the
# model's longest). Utilization is MFU: the model's FLOPs over the devices' peak, counting
# recomputed FLOPs once. *Chunks* are the thin stages that a rank holds, as in *interleaved*. A dash
# means that no split fits. (The third cell below asks for a plan that does not fit, on purpose. In
# `llama-3.1-70b`, 64 query heads share 8 key-value heads, eight to each: beyond 8 ranks, tensor
# parallelism would have to copy key-value heads; this model's plans below stay at 4.)

# %% [markdown] tags=["zh"]
# 快慢由最慢的阶段决定，它超出平均份额越多，时间就多花得越多。1F1B 里，最后一个阶段慢，代价最大；GPipe 则与位置无关。
# **DualPipe** 代价最小：rank r 分到第 r 和第 K - 1 - r 个阶段，慢的那个由两个 rank 分担。
# 两个真正计算的 rank 是否也要付出代价，看上表的区间。作结论时，区间还要按均衡的一步与自身之比（A/A）的噪声放宽：
# 放宽后有区间整个低于 1.05，结论的第二部分就不成立；否则，有区间跨过 1.05，就是“未定”。
#
# ## 9 · 合在一起：张量 × 流水线 × 数据
#
# 给定模型、设备和批次，规划器把放得下的切法都试一遍，取最快的。下面用 80 GB 的 A100，批次为 1,536 条序列，
# 每条 2,048 个 token（或模型的最大长度）。“模型块数”就是每个 rank 承担的薄阶段数，同交错式。
# 利用率即 MFU：模型的 FLOPs（重计算的部分不重复计）与设备峰值之比。（第三格故意求一个放不下的方案。
# `llama-3.1-70b` 有 64 个查询头、8 个键值头，每 8 个查询头共用一个键值头：张量并行若超过 8 个 rank，键和值就得重复存放；
# 下表里这个模型只用到 4。短横表示没有放得下的切法。）

# %%
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.distributed import plan_fit
from efflab.distributed.plan import best_plan, fitting_plans
from efflab.distributed.split import Training
from efflab.lab.refusals import refusal

a100 = DEVICES["A100 80GB SXM"]

# %%
rows = []
for name in ("bert-large", "gpt2-xl", "llama-3.1-70b", "gpt3-175b"):
    training = Training(PRESETS[name], a100, 1536, min(2048, PRESETS[name].max_len))
    for n in (8, 64, 512):
        plan = next(iter(fitting_plans(training, n)), None)  # the fastest, or none that fits
        rows.append(
            {
                "model": name,
                "devices": n,
                "tensor": plan and plan.tp,
                "pipeline": plan and plan.pp,
                "data": plan and plan.dp,
                "micro-batches": plan and plan.n_microbatches,
                "chunks": plan and plan.n_chunks,
                "GB per card": plan and plan.memory_bytes / 1e9,
                "utilization (%)": plan and 100 * plan.mfu,
            }
        )
table(rows, kind="computed")

# %%
try:
    best_plan(PRESETS["gpt3-175b"], 8, a100, global_batch=1536, seq_len=2048)
except ValueError as error:
    print(refusal(error))

# %% [markdown] tags=["en"]
# Can we trust the planner's model of time? Below are published rows of Megatron-LM, each predicted
# with three constants that were fitted only to other models' rows. PTD-P is the paper's name for
# pipeline, tensor and data parallelism together; the paper's TFLOP/s also count the recomputed
# forward pass:

# %% [markdown] tags=["zh"]
# 规划器的时间模型可信吗？下面是 Megatron-LM 论文表中的各行，每一行都用三个常数来预测，而这三个常数只在其他模型的行上拟合。
# PTD-P 是论文对“流水线 + 张量 + 数据并行”的简称；论文的 TFLOP/s 把重计算也算在内：

# %%
predictions = plan_fit.left_out()
show(figures.predictions(predictions))

# %%
groups = {
    "Table 1, time model": [row for row in predictions if row["table"] == 1],
    "Table 1, one constant for all rows": plan_fit.one_number(),
    "Table 2, time model": [row for row in predictions if row["table"] == 2],
}
rows = [
    {
        "rows": name,
        "number of rows": len(group),
        "median error (%)": 100 * plan_fit.median_error(group),
        "largest error (%)": 100 * max(abs(row["error"]) for row in group),
    }
    for name, group in groups.items()
]
table(rows, kind="computed")

# %% [markdown] tags=["en"]
# Table 1's rows are so alike that one constant for all rows is also off by only a few per cent, so
# Table 1 proves little. Table 2's rows span a factor of four, and there the model earns trust. (Not
# full trust: two choices, that ZeRO-3's gradient sums are not hidden and that its gathers use one
# link of a node, were made after these rows were known. Notebook 15 shows what an earlier planner
# predicted for three rows that it had never seen.)
#
# ## 10 · Where it breaks
#
# - **One micro-batch**: only one stage works at a time.
# - **Few sequences per device**: there is nothing to cut into micro-batches, and the bubble stays.
# - **Tensor parallelism between machines**: two all-reduces per layer over a slow wire.
# - **Uneven stages**, above: the bubble formula assumes equal ones.
# - **Micro-batches that are too small**, above: products and hand-over cost more per row.
# - **Batch norm**: each micro-batch has its own statistics; GPipe's AmoebaNet had to deal with
#   that.
#
# ## 11 · Verdicts
#
# (In `microbatch-bubble`, a difference between two bubbles is in percentage points, although the
# card writes %.)

# %% [markdown] tags=["zh"]
# 表 1 的各行彼此太像，只用一个常数也不过差百分之几，所以说明不了什么。表 2 各行中，最大值约为最小值的四倍，模型在这里才算经受了检验。
# （但也不能全信：“ZeRO-3 的梯度求和藏不住”“权重收集只用节点的一条链路”这两点，是看到这些行之后才选定的。
# 较早的规划器对三行从未见过的数据作了什么预测，见第 15 篇。）
#
# ## 10 · 何时失效
#
# - **只有一个微批次**：任何时刻都只有一个阶段在干活。
# - **每台设备的序列太少**：切不出微批次，气泡就消不掉。
# - **跨机器做张量并行**：每层两次 all-reduce 都走慢链路。
# - **阶段不均**，见上文：气泡公式只适用于均等的阶段。
# - **微批次太小**，见上文：矩阵乘法和传递摊到每一行的开销变大。
# - **BatchNorm**：各微批次的统计量不同；GPipe 论文里的 AmoebaNet 就必须处理这个问题。
#
# ## 11 · 结论
#
# （`microbatch-bubble` 中，两个气泡之差的单位是百分点，虽然卡片上写的是 %。）

# %% tags=["nbval-ignore-output"]
evidence = verdicts.model_evidence(between, alone, inside, errors["summed late"])
lab.verdict("model-parallel", verdicts.model_parallel(evidence))

# %%
evidence = verdicts.gpipe_evidence(gpipe.gains())
lab.verdict("gpipe-throughput", verdicts.gpipe_throughput(evidence))

# %% tags=["nbval-ignore-output"]
split_gain = makespans["equal counts"] / makespans["best split"]
evidence = verdicts.balance_evidence(measure.slowdowns(), times, others, split_gain)
lab.verdict("pipe-balance", verdicts.pipe_balance(evidence))

# %% tags=["nbval-ignore-output"]
evidence = verdicts.bubble_evidence(measure.simulate_all(), bubbles, others)
lab.verdict("microbatch-bubble", verdicts.microbatch_bubble(evidence))
for pool in pools.values():
    pool.close()

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# **13-3 (open: beat `pipe-balance`).** One of four stages takes 1.5 times as long as the others
# (forward passes of 2/3, 1, 2/3, 2/3; backward passes twice as long). Write orders for 8
# micro-batches with which a step takes no longer than 1F1B's on *balanced* stages (0.75 each).
# `("I", i)` and `("W", i)`, half a B each, are allowed; a rank may hold all 8 micro-batches. A
# better schedule makes up for the imbalance but does not remove it: how long do your orders take on
# balanced stages?
#
# <details><summary>Hint</summary>Nobody waits for W. Never let the slow stage wait: run far enough
# ahead, and keep some W for the gaps.</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# **13-3（开放题：推翻 `pipe-balance`）。** 四个阶段之一的耗时是其他的 1.5 倍（前向为 2/3、1、2/3、2/3，反向都是前向的两倍）。为 8 个微批次写出次序，
# 使一步的用时不超过*均衡*阶段（各 0.75）上的 1F1B。可以用 `("I", i)` 和 `("W", i)`，各相当于半个 B；一个 rank 可以保存全部 8 个微批次。
# 更好的调度只是抵消了不均衡的代价，并没有消除不均衡：同样的次序在均衡的阶段上要多久？
#
# <details><summary>提示</summary>没有谁在等 W。要让慢的阶段从不空等：前向提前得足够多，并留一些 W 来填补空隙。</details>

# %% tags=["exercise", "ex-13-3"]
answer_3 = ...  # [[("F", 0), ...], ...]

# %%
check("13-3", answer_3)

# %% [markdown] tags=["solution", "ex-13-3"]
# <details><summary>Solution</summary>
#
# ```python
# answer_3 = []
# for r in range(4):
#     ahead = min(8, 2 * (4 - r) - 1)
#     order = [("F", i) for i in range(ahead)]
#     for i in range(8):
#         order.append(("I", i))
#         if ahead + i < 8:
#             order.append(("F", ahead + i))
#         if i >= r:
#             order.append(("W", i - r))
#     answer_3.append(order + [("W", i) for i in range(8 - r, 8)])
# ```
#
# </details>

# %% [markdown] tags=["en"]
# ## Recap
#
# - Columns first, then rows: one all-reduce per sub-layer. Any other order sends more, or is wrong.
# - The bubble is (K - 1)/(M + K - 1). Ranks that sleep match it. Ranks that compute wait longer,
#   because hand-over takes time and ranks are never equally fast; small micro-batches also compute
#   less efficiently. Even so, more micro-batches shrink the bubble, and 1F1B makes room for more.
# - Newer schedules split the backward pass, or send micro-batches in at both ends.
# - The slowest stage sets the pace; dynamic programming finds the best cut between layers.
# - Large runs use all three: tensor parallelism inside a machine, pipeline between machines, data
#   for the rest.
#
# **References.** Huang et al. 2019, *GPipe*, arXiv:1811.06965. Shoeybi et al. 2019, *Megatron-LM*,
# arXiv:1909.08053. Narayanan et al. 2021, *Efficient Large-Scale Language Model Training*,
# arXiv:2104.04473. Qi et al. 2023, *Zero Bubble Pipeline Parallelism*, arXiv:2401.10241. DeepSeek-AI
# 2024, *DeepSeek-V3*, arXiv:2412.19437.
#
# **Next:** [14 · Case study](14_case_study.ipynb): one model, all chapters.

# %% [markdown] tags=["zh"]
# ## 小结
#
# - 先列后行：每个子层一次 all-reduce。换个次序，要么发得更多，要么结果是错的。
# - 气泡是 (K - 1)/(M + K - 1)。休眠的 rank 与之相符；真正计算的 rank 等得更久，因为传递数据要花时间，各 rank 的快慢也不会完全一样；
#   此外，微批次越小，算得越不划算。即便如此，微批次越多，气泡仍越小，1F1B 则为更多的微批次腾出了内存。
# - 较新的调度把反向拆开，或让微批次从两端进入。
# - 最慢的阶段决定快慢；动态规划能找出层间最好的切法。
# - 大规模训练三者并用：机器内部用张量并行，机器之间用流水线并行，其余用数据并行。
#
# **参考文献。** Huang 等 2019，*GPipe*，arXiv:1811.06965。Shoeybi 等 2019，*Megatron-LM*，arXiv:1909.08053。
# Narayanan 等 2021，*Efficient Large-Scale Language Model Training*，arXiv:2104.04473。
# Qi 等 2023，*Zero Bubble Pipeline Parallelism*，arXiv:2401.10241。DeepSeek-AI 2024，*DeepSeek-V3*，arXiv:2412.19437。
#
# **下一篇：** [14 · 案例](14_case_study.ipynb)：一个模型，走完各章。
