# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["en"]
# # 11 · Pruning
#
# A trained model has weights that hardly matter. Set them to zero, and up to a point the quality
# stays the same. This notebook asks what can be removed, and what removing it really saves.
#
# | | |
# |---|---|
# | **Claims** | `prune-gradual`, `prune-finetune`, `prune-compute` |
# | **Time** | 30 minutes; the cells run in about 40 seconds |
# | **Afterwards you can** | mask weights and keep them masked through training, find and remove heads and neurons, say when zeros save bytes and when time, and judge whether a gradual schedule is worth it |

# %% [markdown] tags=["zh"]
# # 11 · 剪枝
#
# 训练好的模型里，有些权重几乎不起作用。把它们置零，质量在一定范围内不变。
# 本篇要回答：哪些可以去掉？去掉之后究竟省了什么？
#
# | | |
# |---|---|
# | **论断** | `prune-gradual`、`prune-finetune`、`prune-compute` |
# | **用时** | 30 分钟；全部单元格运行约 40 秒 |
# | **学完之后** | 能给权重加掩码并在训练中保持；能找出并真正移除注意力头和神经元；能说清零什么时候省字节、什么时候省时间；能判断逐步剪枝是否值得 |

# %% tags=["parameters"]
language = "en"
share = 0.33  # of the heads removed where heads are measured, 0.02 to 1.0
seq_len = 128  # tokens of a timed pass, 1 to 512
ratio = 0.8  # the recorded point whose drop is measured once more: 0.5, 0.8 or 0.9

# %%
import torch
from torch import nn
from torch.nn.utils import prune

from efflab import data, lab, points, train
from efflab.compression import pruning, sparse
from efflab.experiments import pruning_recovery
from efflab.experiments.record import agrees
from efflab.lab import board, check, explore, predict, show, show_source, sweeps, table
from efflab.model import n_parameters
from efflab_rooms import texts
from efflab_rooms.pruning import exercises, figures, measure, verdicts

lab.use_language(language)
lab.use_notebook("11_pruning", exercises.EXERCISES, texts("pruning"))

# %% [markdown] tags=["en"]
# ## 1 · Predict first
#
# Take a model and set 90% of the weights in its layers to zero. Write both numbers down.

# %% [markdown] tags=["zh"]
# ## 1 · 先预测
#
# 取一个模型，把各层权重的 90% 置零。请先写下两个数字。

# %%
p_time = predict("What percentage of a forward pass's time does that save?", "%")

# %%
p_bytes = predict(
    "CSR stores each nonzero as its 32-bit value and a 32-bit column number. Above what percentage "
    "of zeros is that smaller than the dense 32-bit matrix?",
    "%",
)

# %% [markdown] tags=["en"]
# ## 2 · Build: masks
#
# The simplest criterion is an old one: remove the smallest weights (Han et al. 2015 brought it to
# deep networks). Before you see our version, write your own.
#
# **11-1.** Write `magnitude_mask(weight, ratio)` (as `answer_1`): return a bool tensor, True where
# a weight is kept, with exactly the round(ratio x size) smallest weights removed. A ratio of 0
# removes nothing, 1 everything; equal magnitudes are no excuse for removing more.
#
# <details><summary>Hint</summary>Sort the magnitudes and set the first round(ratio x size) to
# False. A threshold goes wrong at the ends.</details>

# %% [markdown] tags=["zh"]
# ## 2 · 实现：掩码
#
# 最简单的准则由来已久：去掉绝对值最小的权重（Han 等 2015 把它用到深度网络上）。看我们的实现之前，先自己写。
#
# **11-1.** 写出 `magnitude_mask(weight, ratio)`（赋给 `answer_1`）：返回布尔张量，保留处为 True，恰好去掉
# round(ratio × 元素数) 个绝对值最小的权重。0 表示什么也不去掉，1 表示全部去掉；绝对值相同的再多，也不能多去掉。
#
# <details><summary>提示</summary>按绝对值排序，把前 round(ratio × 元素数) 个设为 False。
# 用阈值的话，两端会出错。</details>

# %% tags=["exercise", "ex-11-1"]
answer_1 = ...  # def answer_1(weight, ratio): return mask

# %%
check("11-1", answer_1)

# %% [markdown] tags=["solution", "ex-11-1"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_1(weight, ratio):
#     mask = torch.ones(weight.numel(), dtype=torch.bool)
#     order = weight.abs().flatten().argsort()
#     mask[order[: round(ratio * weight.numel())]] = False
#     return mask.view(weight.shape)
# ```
#
# </details>

# %% [markdown] tags=["en"]
# Our version, and the **2:4** pattern, which gives up some freedom for the sake of hardware: of
# every four neighbouring weights, two stay.

# %% [markdown] tags=["zh"]
# 我们的实现如下。另有 **2:4** 模式，它为迁就硬件放弃了一些自由：相邻的每四个权重中留下两个。

# %%
show_source(pruning.magnitude_mask)
show_source(pruning.n_m_mask)

# %%
show(figures.masks_figure())

# %% [markdown] tags=["en"]
# The more freedom, the more of the matrix survives: the captions give the share of the weights' sum
# of squares that is kept. The article explains *structured* pruning as removing small weights (and
# attention heads). But removing single weights is the left picture, **unstructured** pruning.
# Structured pruning is the right one: it removes whole rows, heads or neurons, and a smaller matrix
# is left.
#
# torch's own tool for masks is `torch.nn.utils.prune`. Both have to choose the same weights:

# %% [markdown] tags=["zh"]
# 自由度越高，矩阵保留得越多（图题给出的是权重平方和保留的比例）。文章讲*结构化*剪枝时，
# 举的例子是去掉绝对值小的权重（以及注意力头）；去掉单个权重其实是左图，即**非结构化**剪枝；
# 结构化是右图：整行、整个头或整个神经元地去掉，之后留下一个更小的矩阵。
#
# torch 自带的对应工具是 `torch.nn.utils.prune`。二者选出的权重应当完全相同：

# %%
torch.manual_seed(0)
linear = nn.Linear(192, 768)
mask = pruning.magnitude_mask(linear.weight, 0.9)
prune.l1_unstructured(linear, "weight", 0.9)
print(torch.equal(mask, linear.weight_mask.bool()))

# %% [markdown] tags=["en"]
# **A mask has to be held.** Training has no reason to leave a zero alone. One step of AdamW on
# `stdlib-gpt` with 80% zeros, first without holding the masks, then with each weight computed as
# weight x mask:

# %% [markdown] tags=["zh"]
# **掩码必须保持住。** 训练不会让零一直是零。给 80% 为零的 `stdlib-gpt` 做一步 AdamW：
# 先不加约束，再让每个权重都按“权重 × 掩码”计算：

# %%
show_source(pruning.hold_masks)

# %% tags=["nbval-ignore-output"]
batch = data.random_windows(data.stdlib_tokens("train"), 2, 64, seed=0)
rows = []
for hold in (False, True):
    model = measure.prune("weights", 0.8)
    masks = pruning.weight_masks(model, lambda weight: weight != 0)
    with pruning.hold_masks(model, masks if hold else {}):
        train.fit(model, lambda step: batch, 1, lr=1e-4)
    weights = torch.cat([model.get_parameter(name).flatten() for name in masks])
    zeros = 100 * (weights == 0).double().mean().item()
    assert abs(zeros - 80) < 0.1 if hold else zeros < 5
    rows.append({"masks held": hold, "zeros after one step (%)": zeros})
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# ## 3 · Build: heads and neurons, really removed
#
# Removing a head means removing its rows of `qkv` and its columns of `out`; removing an FFN neuron
# means removing its row of `up` and its column of `down`. The matrices get smaller.

# %% [markdown] tags=["zh"]
# ## 3 · 实现：真正移除头和神经元
#
# 移除一个头，就是去掉它在 `qkv` 中的行和在 `out` 中的列；移除一个 FFN 神经元，就是去掉它在 `up` 中的行
# 和在 `down` 中的列。矩阵变小了。

# %%
show_source(pruning.prune_heads)

# %% [markdown] tags=["en"]
# Which heads? Michel et al. (2019) put a gate of 1 on each head and take the gradient of the loss
# with respect to the gate, $I_h = E_x |\partial L(x) / \partial \xi_h|$: how steeply a text's loss
# changes, up or down, when the gate begins to close, averaged over texts. One backward pass over a
# batch gives this for all heads at once.
#
# How reliable is a slope? With 36 heads, the true cost is cheap to measure: remove each head alone,
# and see how far the loss on the same text rises. (Layers and heads are counted from 0, as in the
# code.)

# %% [markdown] tags=["zh"]
# 移除哪些头？Michel 等（2019）在每个头上放一个值为 1 的门，求损失对门的梯度
# $I_h = E_x |\partial L(x) / \partial \xi_h|$：门刚开始关上时，一段文本的损失变化得有多快，
# 不论升降，再对文本取平均。
# 对一批样本做一次反向传播，就能同时得到所有头的结果。
#
# 斜率有多可靠？只有 36 个头，真值也不难得到：逐个移除，看同一段文本上的损失升高多少。（层和头都从 0 开始编号，与代码一致。）

# %%
p_head = predict(
    "The largest gradient of any head is 0.07 nats. How many nats can removing one head cost?",
    "nats",
)

# %% tags=["nbval-ignore-output"]
gradient, ablation = measure.importance("heads"), measure.ablation()
ratios = ablation / gradient
assert 1.5 < ratios.median() < 3.5
assert 4 < ratios.max()
p_head.reveal(ablation.max().item())
show(figures.importance_figure())

# %% [markdown] tags=["en"]
# The slope at the open gate says little about the closed one. For 26 of the 36 heads the true cost
# is more than twice the gradient, and for one nearly eight times, although the gradient counts a
# text whose loss would fall as if it would rise. The gradient is made to rank heads, not to
# forecast the loss. Three heads in layers 0 and 1 cost more than twice as much as any other. By the
# gradient, two of them lead by only a third to a half, and the third is level with a head that
# costs a third as much. But pruning needs only the *order*, and that is much the same (rank
# correlation 0.85).
#
# Michel et al. also divide each layer's importances by their l2 norm, which changes the order
# between layers; `least_important` does not. And `least_important` leaves each layer its best head,
# so at most 30 of the 36 can go. Section 4 compares gradient, normalized gradient and ablation.
#
# First: does a model with some heads removed give the same output as one in which a mask silences
# them? It has to, up to rounding; and both differ from the whole model.

# %% [markdown] tags=["zh"]
# 门全开处的斜率，对门关上之后的事说明不了多少。36 个头中有 26 个，真值是梯度的两倍以上，最多的接近八倍，
# 尽管梯度已把损失会下降的文本也算作上升。梯度是用来给头排序的，并不预测损失。第 0、1 层有三个头，代价都是其余任何一个的两倍以上，
# 按梯度，其中两个只领先三分之一到一半，另一个与代价仅为其三分之一的头持平。不过剪枝只看*次序*，而次序大体一致（秩相关系数 0.85）。Michel 等还把每层的重要性除以该层的 l2 范数，这会改变层与层之间的次序；
# `least_important` 不做这一步，但给每层都留下最重要的一个头，所以 36 个头最多去掉 30 个。
# 梯度、归一化后的梯度、真实消融，这三种排法第 4 节来比一比。
#
# 先看另一个问题：移除了若干头的模型，与用掩码让它们静默的模型一样吗？必须一样，只差舍入误差；而二者都与完整模型不同。

# %%
model = points.language_model()
heads = pruning.least_important(measure.importance("heads"), share)
masked_model = pruning.apply_masks(model, pruning.head_masks(model, heads))
small_model = pruning.prune_heads(model, heads)
ids, _ = data.random_windows(data.stdlib_tokens("train"), 1, 64, seed=0)
with torch.no_grad():
    rounding = (small_model(ids) - masked_model(ids)).abs().max().item()
    change = (masked_model(ids) - model(ids)).abs().max().item()
assert rounding < 1e-3 < change
print(rounding < 1e-3, change > 0.1)

# %% [markdown] tags=["en"]
# ## 4 · Measure: what can go
#
# `stdlib-gpt` on held-out modules, pruned and not trained any further: the whole model's 1.068 bits
# per byte, plus what pruning adds on 16 windows of 128 tokens.

# %% [markdown] tags=["zh"]
# ## 4 · 实测：哪些可以去掉
#
# `stdlib-gpt` 在留出模块上的质量，剪枝之后不再训练：在它每字节 1.068 比特的基础上，加上剪枝在 16 个 128 token 的窗口上带来的增量。

# %% tags=["nbval-ignore-output"]
cases = {
    "weights, smallest": ("weights", None),
    "FFN neurons, least important": ("FFN neurons", None),
    "heads, by gradient": ("heads", None),
    "heads, by normalized gradient": ("heads", gradient / gradient.norm(dim=1)[:, None]),
    "heads, by true ablation": ("heads", ablation),
    "heads, at random": ("heads", torch.rand(6, 6, generator=torch.Generator().manual_seed(0))),
}
curves = {}
for name, (kind, scores) in cases.items():
    curves[name] = {0.0: measure.quality(points.language_model()).mean}
    for removed in (0.1, 0.25, 0.5, 0.75):
        curves[name][removed] = measure.quality(measure.prune(kind, removed, scores)).mean
two_of_four = measure.quality(measure.prune("n of 4 weights", 0.5)).mean
assert all(curve[0.0] < curve[0.25] < curve[0.75] for curve in curves.values())
at_25, at_50 = ({name: curve[part] for name, curve in curves.items()} for part in (0.25, 0.5))
assert at_25["heads, by true ablation"] < at_25["heads, by gradient"] < at_25["heads, at random"]
assert at_50["heads, by normalized gradient"] < at_50["heads, by gradient"]
show(figures.curves_figure(curves, two_of_four))

# %% [markdown] tags=["en"]
# Read three things from the picture:
#
# - What does removing a quarter of the weights or of the FFN neurons cost?
# - What does 2:4 cost compared with the 50% point of the first line, which removes as many weights
#   but chooses freely?
# - Which ranking of heads is best? At a quarter, the true ablation: 1.20 bits per byte, against
#   1.24 by the gradient and 1.27 by the normalized one. At a half, normalized gradient and ablation
#   are close (1.59 and 1.61), and the plain gradient is at 1.74. At three quarters the three are
#   alike. No ranking wins throughout.
#
# These are means over 16 short windows, without intervals: gaps of about 0.03, as between 1.24 and
# 1.27 or 1.59 and 1.61, may be chance; "at random" is a single draw. Each head's own ablation is
# exact, but says nothing about removing eighteen heads together (notebook 14 adds up the single
# costs and compares the sum with the joint cost). Mind the axis: half of the heads are only a sixth
# of a layer's weights, half of the neurons a third.
#
# ## 5 · Measure: bytes
#
# A masked matrix is as large as before. It shrinks only when zeros are not stored, and then the
# positions of the nonzeros must be stored: CSR stores a column for each nonzero, a bitmap one bit
# for each position, 2:4 two bits for each value that stays. The actual bytes of a 768 x 192 matrix
# with 32-bit values:

# %% [markdown] tags=["zh"]
# 这张图有三点值得看。去掉四分之一的权重或 FFN 神经元，代价多大？2:4 去掉的权重与第一条线的 50% 处一样多，
# 但选择受模式限制，代价差多少？给头排序，哪种做法最好？去掉四分之一时，最好的是真实消融：每字节 1.20 比特，按梯度是 1.24，归一化后是 1.27。
# 去掉一半时，归一化的梯度与真实消融不相上下（1.59 和 1.61），未归一化的是 1.74。去掉四分之三时，三者不相上下。
# 没有一种排法处处领先。这些是 16 个短窗口的均值，没有给出区间：
# 0.03 左右的差距（1.24 与 1.27、1.59 与 1.61）可能只是偶然；“随机”也只抽了一次。逐个消融的结果是准确的，
# 但十八个头一起去掉会怎样，它说明不了（第 14 篇把各自的代价相加，再与一起去掉时比较）。
# 还请留意横轴：一半的头只占一层权重的六分之一，一半的神经元则占三分之一。
#
# ## 5 · 实测：字节
#
# 加了掩码的矩阵与原来一样大。只有不存零，它才会变小；但这时必须记下非零元素的位置：
# CSR 为每个非零元素记一个列号，位图为每个位置记一个比特，2:4 为每个留下的值记两个比特。
# 一个 768 × 192、32 比特的矩阵的实际字节数：

# %%
weight = torch.randn(768, 192, generator=torch.Generator().manual_seed(0))
halved = weight * pruning.n_m_mask(weight, 2, 4)
layouts = {"dense": "dense (kB)", "csr": "CSR (kB)", "bitmap": "bitmap and values (kB)"}
rows = []
for zeros in (0.25, 0.5, 0.75, 0.9):
    masked = weight * pruning.magnitude_mask(weight, zeros)
    row = {"zeros (%)": 100 * zeros}
    for layout, header in layouts.items():
        row[header] = sparse.layout_bytes(masked, layout) / 1e3
    row["2:4 (kB)"] = sparse.layout_bytes(halved, "2:4") / 1e3 if zeros == 0.5 else None
    rows.append(row)
table(rows, kind="measured", digits=4)

# %%
csr_from = 100 * sparse.break_even(4, 4)
p_bytes.reveal(csr_from)
show(figures.layouts_figure())

# %% [markdown] tags=["en"]
# The index decides. With 32-bit values and 32-bit columns, CSR starts to pay off just above one
# half zeros (the start of each row is stored too: exactly at one half, CSR takes 592.9 kB against
# the dense 589.8). With 16-bit values it pays off only at two thirds; a bitmap pays off almost at
# once. Exercise 11-3 asks for the formula.
#
# ## 6 · Measure: time
#
# The same question for time. FLOPs are counted from the layers' real shapes. All runs are
# interleaved; the table gives the median of the paired ratios with its interval. The first row is
# the whole model against itself: the A/A band.

# %% [markdown] tags=["zh"]
# 关键在索引。32 比特的值配 32 比特的列号，零略多于一半，CSR 才划算（每行的起点也要记：恰好一半时为
# 592.9 kB，稠密为 589.8 kB）；16 比特的值要到三分之二；位图几乎从一开始就划算。
# 练习 11-3 要你写出公式。
#
# ## 6 · 实测：时间
#
# 再来看时间。FLOPs 按各层的实际形状统计。所有模型交替运行，取成对比值的中位数及其区间。
# 第一行是完整模型与自身相比，即 A/A 噪声带。

# %% tags=["nbval-ignore-output"]
whole, models = points.language_model(), measure.models_to_time(share)
flops = {
    name: pruning.forward_flops(model, seq_len) / pruning.forward_flops(whole, seq_len)
    for name, model in models.items()
}
times = measure.compare_models(models, seq_len)
rows = []
for name, time in [("nothing", times.again), *times.ratios.items()]:
    rows.append(
        {
            "pruned": name,
            "parameters stored (M)": n_parameters(models.get(name, whole)) / 1e6,
            "FLOPs / whole model": round(flops.get(name, 1), 3),
            "time / whole model": round(time.mean, 3),
            "interval, low": round(time.low, 3),
            "interval, high": round(time.high, 3),
        }
    )
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
show(figures.speed_figure(flops, times))
masked = times.ratios["90% of the weights, masked"]
p_time.reveal(100 * (1 - masked.mean))

# %% [markdown] tags=["en"]
# A dense kernel multiplies zeros like any other number; only smaller matrices mean less to
# multiply. The table shows what that amounts to on this machine.
#
# A sparse kernel skips the zeros, but has to look up where the nonzeros are. One matrix product,
# 1024 x 1024 by 1024 x 256 in 32 bits:

# %% [markdown] tags=["zh"]
# 稠密内核把零当普通的数来乘；矩阵变小，要乘的才变少。在这台机器上差多少，看上表。
#
# 稀疏内核会跳过零，但要查找非零元素在哪里。看一次矩阵乘法（1024 × 1024 乘 1024 × 256，32 比特）：

# %% tags=["nbval-ignore-output"]
products = measure.compare_products()
rows = []
for zeros, kernels in products.items():
    row = {"zeros (%)": 100 * zeros}
    for kernel, time in kernels.items():
        row[f"{kernel} kernel, time / unmasked"] = round(time.mean, 2)
        row[f"{kernel} kernel, low"] = round(time.low, 2)
        row[f"{kernel} kernel, high"] = round(time.high, 2)
    rows.append(row)
table(rows, kind="measured")

# %% [markdown] tags=["en"]
# Where the ratio passes 1, the CSR kernel breaks even with the dense one; with fewer zeros it is
# *slower*. The 2:4 pattern exists to avoid this look-up: its nonzeros fit into fixed slots that
# sparse tensor cores read, at twice the dense peak (Mishra et al. 2021, published). Without such
# hardware torch has no kernel for it:

# %% [markdown] tags=["zh"]
# 比值越过 1 的地方，就是 CSR 内核与稠密内核持平之处；零比这更少时，它反而更*慢*。2:4 模式正是为了免去这种查找：
# 非零元素的位置落在固定的槽里，由稀疏 Tensor Core 读取，峰值吞吐是稠密的两倍（Mishra 等 2021，文献）。
# 没有这种硬件，torch 也就没有相应的内核：

# %% tags=["nbval-ignore-output"]
message = "available"
try:
    torch.sparse.to_sparse_semi_structured(halved.half())
except RuntimeError as error:
    message = f"{type(error).__name__}: {error}"
assert "CUDA" in message
print(message)

# %% [markdown] tags=["en"]
# ## 7 · Explore
#
# Each move of a control prunes `stdlib-gpt` anew and measures it. Find the setting with the
# shortest time below 1.6 bits per byte. Then find one that shrinks the file and leaves the time
# unchanged.

# %% [markdown] tags=["zh"]
# ## 7 · 探索
#
# 每拨动一次，都会重新剪枝 `stdlib-gpt` 并实测。找出每字节比特数低于 1.6 时耗时最少的做法；
# 再找一个文件变小而耗时不变的设置。

# %% tags=["nbval-ignore-output"]
explore(figures.prune, frames=4)

# %% [markdown] tags=["en"]
# Points for the board. A masked model's bytes are those of bitmap and values. The board judges on
# 16 windows of 512 tokens, so its bits per byte differ from those in sections 4 and 7.

# %% [markdown] tags=["zh"]
# 上总榜。加掩码的模型按“位图 + 值”计字节数。总榜在 16 个 512 token 的窗口上评测，因此比特数与第 4、7 节不同。

# %% tags=["nbval-ignore-output"]
techniques = {
    "50% of the weights masked": ("weights", 1 / 2),
    "1/3 of the heads removed": ("heads", 1 / 3),
    "1/4 of the FFN neurons removed": ("FFN neurons", 1 / 4),
}
for name, (kind, removed) in techniques.items():
    model = measure.prune(kind, removed)
    n_bytes = measure.model_bytes(model, "bitmap")
    board.add(technique=name, **points.language_point(model, n_bytes))

# %% [markdown] tags=["en"]
# ## 8 · The same on a real encoder
#
# MiniLM-L6 has 72 heads. Importance is measured on 16 pairs of docstring and code, with the loss of
# finding the code from the docstring; quality is the MRR (mean reciprocal rank, notebook 09) on 60
# other functions. The first row is the whole model against itself: any difference of its time from
# 1 is noise.

# %% [markdown] tags=["zh"]
# ## 8 · 换成真实的编码器
#
# MiniLM-L6 有 72 个头。重要性用 16 对文档字符串与代码来测，损失按“用前者检索后者”计算；
# 质量是另外 60 个函数上的 MRR（平均倒数排名，见第 09 篇）。第一行是完整模型与自身相比：耗时之比与 1 的差距就是测量噪声。

# %% tags=["nbval-ignore-output"]
rows = []
for removed in (0, 1 / 3):
    encoder = measure.prune_minilm(removed)
    cosines = measure.minilm_cosines(encoder)
    n_bytes = points.weight_bytes(encoder)
    point = points.encoder_point(points.encode_with(encoder), n_bytes, repeats=3)
    rows.append(
        {
            "heads left": sum(layer.attention.body.n_head for layer in encoder.layers),
            "size (MB)": n_bytes / 1e6,
            "cosine, mean": round(cosines["mean"], 3),
            "cosine, 5th percentile": round(cosines["p5"], 3),
            "MRR": round(point["quality"].mean, 3),
            "MRR, low": round(point["quality"].low, 3),
            "MRR, high": round(point["quality"].high, 3),
            "time / whole model": round(point["time"].mean, 3),
            "A/A band (±%)": round(100 * point["band"], 1),
        }
    )
table(rows, kind="measured")

# %% tags=["nbval-ignore-output"]
board.add(technique="1/3 of the heads removed", **point)

# %% [markdown] tags=["en"]
# Michel et al. found that a good part of BERT's heads can be removed; the table tries one third on
# this encoder. Check whether the interval of the MRR includes the whole model's MRR, and whether
# the time falls as well. The file hardly shrinks: heads are a small part of this model, and its
# vocabulary is half of it.
#
# ## 9 · One-shot or gradual?
#
# The article advises raising the ratio step by step, from about 10%, to avoid a "sudden drop" in
# accuracy, and says that two or three rounds of fine-tuning recover it. A well-known result favours
# small steps: on AlexNet, Han et al. (2015) remove all but a ninth of the parameters without loss of
# accuracy when pruning and retraining alternate, and all but a fifth in a single step. (Who
# alternates also trains more; below, both train equally long.) A common schedule is Zhu and Gupta's
# cubic curve (2017, equation 1), which does most of its pruning early:

# %% [markdown] tags=["zh"]
# Michel 等发现 BERT 的头有不少可以去掉；上表对这个编码器试了三分之一：请看 MRR 的区间是否包含完整模型的值，耗时是否随之下降。
# 文件大小几乎不变：这个模型有一半是词表，头只占一小部分。
#
# ## 9 · 一步到位还是逐步？
#
# 文章建议剪枝率从 10% 左右逐步提高，以免“精度骤降”，并说再微调两三轮即可恢复。
# 有一个著名的结果支持分步：Han 等（2015）在 AlexNet 上交替剪枝与再训练，参数减到九分之一而不损精度，
# 一步剪完只能减到五分之一（交替时训练也更多；下面两种方案训练同样久）。常用的方案是 Zhu 与 Gupta 的三次曲线
# （2017，式 1），大部分在早期去掉：

# %%
show_source(pruning.gradual_schedule)
print([round(r, 3) for r in pruning.gradual_schedule(0.1, 0.9, 10)])

# %% [markdown] tags=["en"]
# The model is `stdlib-gpt` again. In every matrix of its layers the same share of weights goes, the
# smallest of that matrix; embeddings, about a sixth of all parameters, stay whole. *Dense* is this
# model before pruning.
#
# Both schedules train for as many steps on the same batches, with masks held: three rounds of 200
# steps, each step on 8 windows of 512 tokens, together a fifth of the tokens that the model was
# trained on. One-shot removes its whole share before the first round. Gradual takes ten increments,
# each followed by 40 steps. The tenth, at step 360, reaches the final share; its 40 steps and the
# whole third round train the final network, since Zhu and Gupta too keep training after the last
# increment. Each part of a training (a round, or the 40 steps after an increment) has an AdamW of
# its own, whose learning rate rises to 6e-4 and falls to 0. So gradual begins anew eleven times and
# one-shot three times, unlike Zhu and Gupta, whose masks tighten within one training.
#
# Three controls. A model from which *nothing* is removed has to end within 0.01 bits per byte of
# where it began, lest harm or further learning be taken for an effect of pruning. (It begins anew
# three times, as one-shot does.) A pilot with other seeds chose the rate by it: of four rates it
# tried the largest, 6e-4, first, and that one passed after every round. A model that loses only 20%
# has to end near the control, and one that loses 90% must not, or the test would be too easy. The
# table shows bits per byte above the dense model, means over five seeds; a *drop* counts from the
# level just before it. Only the ends compare equals: after round 1 gradual has removed 43, 68 and
# 76% on its way to 50, 80 and 90%.

# %% [markdown] tags=["zh"]
# 模型仍是 `stdlib-gpt`：各层的每个矩阵都去掉同样比例、其中绝对值最小的权重；嵌入（约占全部参数的六分之一）不剪。
# *稠密模型*指剪枝之前的它。
#
# 两种方案的训练步数和各批数据都相同，掩码始终保持：三轮，每轮 200 步，每步 8 个 512 token 的窗口，
# 合计是该模型训练量的五分之一。一步到位（one-shot）在第一轮之前全部剪完。逐步剪枝分十次，每次之后训练 40 步；
# 第十次在第 360 步，这时达到最终的剪枝率；随后的 40 步和整个第三轮都在训练最终的网络：
# Zhu 与 Gupta 在最后一次剪枝之后也会继续训练。
# 训练的每一段（一轮，或一次剪枝之后的 40 步）都新建一个 AdamW，学习率先升到 6e-4，再降到 0。
# 因此逐步剪枝要新建优化器十一次，一步到位只有三次；Zhu 与 Gupta 则是在同一次训练中逐渐收紧掩码。
#
# 有三个对照。*什么也不剪*的模型，终点与起点相差不得超过 0.01 比特/字节，以免把训练造成的退步或继续学到的东西误当作剪枝的影响
# （它与一步到位一样，新建优化器三次）。学习率也以这个对照为准，由预实验用另外的种子选定：四个候选中先试最大的 6e-4，每轮之后对照都合格，就用了它。
# 只剪 20% 的模型必须回到对照附近；剪 90% 的则不能回到那里，否则这个检验就太宽松。
# 表中是比稠密模型每字节多出的比特数，取五个种子的均值；*骤降*以这次剪枝前夕的值为起点。只有终点可以直接相比：
# 第 1 轮之后，逐步剪枝才去掉 43%、68%、76%（最终是 50%、80%、90%）。

# %%
table(measure.schedule_rows(), kind="recorded")

# %% [markdown] tags=["en"]
# Each run behind this table took some 20 minutes of a core. What can be measured here at once is how
# one begins: what does pruning at once cost *before* any training? Nothing in it is drawn at random, so
# this machine has to come to the recorded value, up to its rounding.

# %% [markdown] tags=["zh"]
# 上面每一次训练都要用一个核心约 20 分钟。本机可以马上测的是它的开头：训练*之前*，一步剪完要付出多少？
# 其中没有任何随机抽取，所以除了舍入误差，本机的结果应当与存档相同。

# %% tags=["nbval-ignore-output"]
live, recorded, tolerance = measure.repeat_drop(ratio)
row = {
    "removed (%)": 100 * ratio,
    "lost here (bits per byte)": live,
    "lost in the record (bits per byte)": recorded,
}
row |= {"may differ by": tolerance, "agrees": agrees(live, recorded, tolerance)}
table([row], kind="measured", digits=4)

# %% tags=["nbval-ignore-output"]
show(figures.schedule_figure({ratio: live}))

# %% [markdown] tags=["en"]
# Each tooth of the gradual line is an increment: the quality drops, and 40 steps mend a part of it.
# The first is an exception: removing 10% costs 0.002, and 40 steps at this rate make it more than
# 0.01. Compare two things. The *drop*: how much quality does one step of pruning cost, before the
# training that follows it? For one-shot this is all that is lost before training, measured just now;
# for gradual it is the deepest tooth. And the *end*, after as many steps: one-shot trains the
# network that remains for all 600, gradual for the last 240. Some ends are close; the next picture
# shows differences within a seed:

# %% [markdown] tags=["zh"]
# 逐步剪枝的线上，每个齿是一次剪枝：质量骤降，随后的 40 步补回一部分。第一次是例外：剪掉 10% 只退步 0.002，
# 用这个学习率训练 40 步之后，退步反而超过 0.01。
# 要比两件事。*骤降*：剪一次，在随后的训练开始之前，质量退步多少？对一步到位，这就是训练前失去的全部，
# 也就是刚才测的那个数；对逐步剪枝，取最深的一个齿。*终点*：训练步数相同，但最终留下的网络，一步到位训练了全部 600 步，
# 逐步剪枝只训练最后 240 步。有的终点挨得很近，下面逐种子画出差值：

# %%
show(figures.differences_figure())

# %% [markdown] tags=["en"]
# The drop is smaller with gradual pruning, but that was almost certain: it removes less at a time.
# At the end, the order depends on the share. At 50% one-shot is ahead by 0.007 bits per byte, within
# the verdict's margin of 0.02; beginning anew may be a part of that. At 80% gradual is ahead by 0.026
# and at 90% by 0.167, although it trained the final network for 240 steps instead of 600. No seed
# disagrees; but a seed changes only the batches, and the model and the 32 held-out texts are the
# same. Of these texts, 28 are better by one-shot at 50%, 28 by gradual at 80%, and all 32 at 90%. It
# is one model, one learning rate, one length of training and one number of increments; with three
# coarse increments, or a tenth of the training, the ends may be in another order.
#
# How much of the lost quality comes back at all? In the table below, *recovered* is 1 minus what is
# still missing / what was lost before training. After a round, missing is what is above the control;
# in the last column, above the dense model. At 20% so little was lost that 0.001 is 8% of it (hence
# the value above 100%): everything is back after the first round, within that. At 50%, 93% is back
# after the third: 0.020 bits per byte are missing, where the verdict allows 0.05. At 80% it is 86%,
# but of a loss six times as large: 0.238 are missing. At 90%, 64% is back.

# %% [markdown] tags=["zh"]
# 骤降更小几乎是必然的：分几次去掉，每次自然去掉得少。终点的次序则取决于剪枝率。50% 处一步到位领先 0.007 比特/字节，
# 没有超出结论的余量 0.02，而这一领先有一部分可能来自逐步剪枝多次新建优化器；80% 处逐步剪枝领先 0.026，90% 处领先 0.167，
# 尽管最终的网络，它只训练了 240 步，一步到位则训练了 600 步。没有一个种子例外；不过种子只改变各批数据，模型和 32 段留出文本都相同。
# 这些文本中，50% 处有 28 段是一步到位更好，80% 处有 28 段是逐步剪枝更好，90% 处 32 段都是。
# 这里只测了一个模型、一个学习率、一种训练长度和一种剪枝次数：若只粗分三次，或者训练量只有十分之一，终点的次序可能不同。
#
# 那么，失去的质量究竟恢复了多少？下表的“恢复”是 1 减去（还差的 / 训练前失去的）：各轮后的“还差”与对照相比，
# “最后恢复”一列与稠密模型相比。20% 处失去的很少，0.001 就是其中的 8%（所以会超过 100%）：在这个误差之内，
# 第一轮之后就全部恢复。50% 处第三轮之后恢复 93%，还差 0.020 比特/字节，结论允许 0.05。
# 80% 处恢复 86%，但失去的是 50% 处的六倍，还差 0.238；90% 处恢复 64%。

# %%
table(measure.recovery_rows(), kind="recorded")

# %% [markdown] tags=["en"]
# ## 10 · Where it breaks
#
# - **At high ratios.** After three rounds 0.24 bits per byte are still missing at 80% and 0.78 at
#   90%, against a control trained as long. Every round still brought some back: this is a limit of
#   600 steps at this learning rate, not of pruning.
# - **Where masks are not held.** See section 2: after a single step, almost all zeros are filled
#   again.
# - **Where layers share weights.** A head pruned in one layer would be pruned in all of them, so
#   `prune_heads` refuses.
# - **In saved files.** `config` no longer gives the shapes of a model with heads removed.

# %% [markdown] tags=["zh"]
# ## 10 · 何时失效
#
# - **剪枝率高时。** 三轮之后，与训练同样久的对照相比，80% 处还差 0.24 比特/字节，90% 处还差 0.78。
#   每一轮都还在补回：这是这个学习率下 600 步的极限，不是剪枝的极限。
# - **掩码没有保持时。** 见第 2 节：只要一步，零就几乎全被填满。
# - **各层共享权重时。** 在一层剪掉一个头，就等于在所有层都剪掉。`prune_heads` 会拒绝。
# - **保存文件时。** 移除了头的模型，`config` 不再反映它的形状。

# %% [markdown] tags=["en"]
# ## 11 · Verdicts

# %% [markdown] tags=["zh"]
# ## 11 · 结论

# %%
cases = pruning_recovery.cases(measure.recovery_record()["runs"])
lab.verdict("prune-gradual", verdicts.prune_gradual(verdicts.gradual_evidence(cases)))

# %%
lab.verdict("prune-finetune", verdicts.prune_finetune(verdicts.finetune_evidence(cases)))

# %% tags=["nbval-ignore-output"]
removed_heads = {n: f"{n}% of the heads, removed" for n in measure.HEADS_OFF}
evidence = verdicts.compute_evidence(
    heads={n: times.ratios[name] for n, name in removed_heads.items()},
    masked=times.ratios["90% of the weights, masked"],
    band=times.band,
    heads_flops={n: flops[name] for n, name in removed_heads.items()},
    masked_flops=flops["90% of the weights, masked"],
    csr={round(100 * zeros): kernels["CSR"] for zeros, kernels in products.items()},
)
lab.verdict("prune-compute", verdicts.prune_compute(evidence))

# %% [markdown] tags=["en"]
# ## 12 · Exercises
#
# Exercise 11-1 is in section 2.
#
# **11-2.** Write `layer_flops(T, d_model, n_head, head_dim, n_neurons)` (as `answer_2`): the FLOPs
# of one layer's matrix products over T tokens, after some heads and neurons are removed. Count 2
# per multiply-accumulate, and all T x T scores. Note that n_head x head_dim is then no longer
# d_model.
#
# <details><summary>Hint</summary>Call n_head x head_dim A. Queries, keys, values and output are four
# products of d_model and A; scores and weighted sum are two of T, T and A; the FFN is two of d_model and
# n_neurons.</details>

# %% [markdown] tags=["zh"]
# ## 12 · 练习
#
# 11-1 在第 2 节。
#
# **11-2.** 写出 `layer_flops(T, d_model, n_head, head_dim, n_neurons)`（赋给 `answer_2`）：移除一些头和神经元之后，
# 一层处理 T 个 token 时各矩阵乘法的计算量，一次乘加计 2，T × T 个注意力分数全部计入。注意此时 n_head × head_dim 不再等于 d_model。
#
# <details><summary>提示</summary>记 A = n_head × head_dim。查询、键、值和输出是四个 d_model 与 A 的乘积；
# 注意力分数与加权求和是两个 T、T 与 A 的乘积；FFN 是两个 d_model 与 n_neurons 的乘积。</details>

# %% tags=["exercise", "ex-11-2"]
answer_2 = ...  # def answer_2(T, d_model, n_head, head_dim, n_neurons): return ...

# %%
check("11-2", answer_2)

# %% [markdown] tags=["solution", "ex-11-2"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_2(T, d_model, n_head, head_dim, n_neurons):
#     A = n_head * head_dim
#     return 8 * T * d_model * A + 4 * T * T * A + 4 * T * d_model * n_neurons
# ```
#
# </details>

# %% [markdown] tags=["en"]
# **11-3.** Write `break_even(value_bytes, index_bytes)` (as `answer_3`): the share of zeros
# (0 to 1) from which storing each nonzero with its index takes fewer bytes than storing all values.
# Do not count the starts of rows.
#
# <details><summary>Hint</summary>With a share s of zeros, each weight takes (1 - s) (value + index)
# bytes on average; set that equal to value.</details>

# %% [markdown] tags=["zh"]
# **11-3.** 写出 `break_even(value_bytes, index_bytes)`（赋给 `answer_3`）：零的比例（0 到 1）达到多少时，
# 只存非零元素及其索引，比存全部的值更小。行起始位置不计。
#
# <details><summary>提示</summary>零的比例为 s 时，平均每个权重剩下 (1 - s)（值 + 索引）字节；
# 令它等于值的字节数。</details>

# %% tags=["exercise", "ex-11-3"]
answer_3 = ...  # def answer_3(value_bytes, index_bytes): return ...

# %%
check("11-3", answer_3)

# %% [markdown] tags=["en", "solution", "ex-11-3"]
# <details><summary>Solution</summary>
#
# ```python
# def answer_3(value_bytes, index_bytes):
#     return index_bytes / (value_bytes + index_bytes)
# ```
#
# An 8-bit model with 32-bit indices needs 80% zeros: quantization and sparse indices do not mix well.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-11-3"]
# <details><summary>答案</summary>
#
# ```python
# def answer_3(value_bytes, index_bytes):
#     return index_bytes / (value_bytes + index_bytes)
# ```
#
# 8 比特的模型配 32 比特的索引，要 80% 是零才划算：量化与稀疏索引配合得并不好。
#
# </details>

# %% [markdown] tags=["en"]
# **11-4 (open: beat the true ablation).** The nine heads that each cost least when ablated alone
# cost 0.40 nats together. Find nine that cost less, on the same batches.
# `answer_4 = {layer: heads}`; the check runs the model.
#
# <details><summary>Hint</summary>Once the first head is removed, the costs of the others change:
# ablate again. <code>measure.loss_without({0: [2], 4: [1]})</code> is the loss without those
# two.</details>

# %% [markdown] tags=["zh"]
# **11-4（开放题：胜过真实消融）。** 单独消融代价最小的九个头，一起去掉要付出 0.40 nat。
# 请在同样的数据上找出代价更小的九个头。`answer_4 = {层: 头}`；检查时会运行模型。
#
# <details><summary>提示</summary>去掉第一个头之后，其余各头的代价就变了：要重新消融。
# <code>measure.loss_without({0: [2], 4: [1]})</code> 就是去掉这两个头之后的损失。</details>

# %% tags=["exercise", "ex-11-4"]
answer_4 = ...  # {layer: [heads], ...}, nine heads in all

# %%
check("11-4", answer_4)

# %% [markdown] tags=["en", "solution", "ex-11-4"]
# <details><summary>Solution</summary>
#
# ```python
# answer_4 = {0: [2, 5], 1: [4], 2: [1, 4], 3: [2], 4: [1, 5], 5: [1]}
# ```
#
# Nine times, remove the head that costs least after those already removed: 0.32 nats, and 1.18
# instead of 1.20 bits per byte on held-out text, for roughly 290 ablations instead of 36.
#
# </details>

# %% [markdown] tags=["zh", "solution", "ex-11-4"]
# <details><summary>答案</summary>
#
# ```python
# answer_4 = {0: [2, 5], 1: [4], 2: [1, 4], 3: [2], 4: [1, 5], 5: [1]}
# ```
#
# 九次，每次去掉在已去掉的基础上代价最小的头：0.32 nat；留出文本上每字节 1.18 比特，而不是 1.20。
# 代价是大约 290 次消融，而不是 36 次。
#
# </details>

# %% [markdown] tags=["en"]
# ## 13 · The share, swept
#
# `efflab sweep` ran this whole notebook at each share on the curve; the star is your own run. Heads
# are removed from `stdlib-gpt` in the order of their gradients, with no training afterwards. Bits
# per byte and time are for texts of 512 tokens (128 in section 4), and the time is relative to the
# whole model's in the same run.

# %% [markdown] tags=["zh"]
# ## 13 · 扫描剪枝率
#
# `efflab sweep` 用下图中的每种比例各运行了一遍本篇，曲线是存档；星号是你自己的这次运行。按梯度从 `stdlib-gpt` 中移除注意力头，
# 之后不再训练；比特数和时间都取 512 个 token 的文本（第 4 节是 128 个），时间与同一次运行中的完整模型相比。

# %% tags=["nbval-ignore-output"]
point = points.language_point(measure.prune("heads", share))
here = {"bits per byte": point["quality"], "time relative to the whole model": point["time"]}
sweeps.show_sweep("11", share, here)

# %% [markdown] tags=["en"]
# ## 14 · Recap
#
# - Small weights can go: removing the smallest quarter of the weights costs 0.02 bits per byte. The
#   fewer are left, the more each one matters.
# - A mask by itself saves neither bytes nor time. Bytes fall when zeros are left out of the file;
#   the index decides from which share of zeros on. Time falls when heads or neurons are removed
#   from the matrices, on hardware made for 2:4 (published), or in a sparse kernel once enough
#   weights are zero (section 6).
# - A model with heads removed equals the one with the same heads masked, and is faster.
# - The gradient orders heads much as single ablation does (rank correlation 0.85) but estimates
#   their costs badly. With half of the heads removed, the plain gradient (1.74) is nearer to a
#   random draw (1.80) than to ablation (1.61). Removing one head raises the loss by up to eight
#   times its gradient, and single ablations do not say what several heads cost together.
# - Pruned step by step, no single drop is as deep. After as much training, gradual pruning ends
#   ahead at 80% (by 0.026 bits per byte) and at 90% (0.167), and 0.007 behind at 50%.
# - Three rounds, a fifth of the model's own training, bring back all that removing 20% of the weights
#   costs, 93% at 50%, 86% at 80% and 64% at 90%. At 20 and 50% that ends within 0.05 bits per byte of
#   an unpruned model trained as long; at 80 and 90% it does not. Nothing in between was tried.
#
# **References.** Han et al. 2015, *Learning both Weights and Connections*; Zhu & Gupta 2017, *To prune,
# or not to prune*; Michel et al. 2019, *Are Sixteen Heads Really Better than One?*; Mishra et al. 2021,
# *Accelerating Sparse Deep Neural Networks* (2:4).
#
# **Further reading.** Frankle & Carbin 2019, *The Lottery Ticket Hypothesis*, reset the surviving
# weights to their initial values and train them again; Frantar & Alistarh 2023, *SparseGPT*, use
# the inputs' second moments for pruning, as GPTQ uses them for rounding.
#
# **Next:** this chapter made a model smaller; [12 · Data parallelism](12_data_parallel.ipynb)
# distributes the work over several processes.

# %% [markdown] tags=["zh"]
# ## 14 · 小结
#
# - 小权重可以去掉，去掉最小的四分之一只使每字节比特数增加 0.02；留下的越少，每一个就越重要。
# - 掩码本身既不省字节，也不省时间。不把零写进文件，字节才会少，而从多大比例起划算取决于索引；
#   把头或神经元从矩阵里移除，或者有支持 2:4 的硬件（文献），或者零足够多且用稀疏内核（见第 6 节），时间才会少。
# - 移除若干头的模型，与给这些头加掩码的模型输出相同，而且更快。
# - 梯度给头排的次序与逐个消融大体一致（0.85），用来估代价则不行；去掉一半的头时，
#   未归一化的梯度（1.74）离随机（1.80）近，离消融（1.61）远。去掉一个头，损失的升幅可达其梯度的八倍，而几个头一起去掉的代价，逐个消融说明不了。
# - 逐步剪枝时，单步的骤降都更小。训练量相同，80% 处逐步剪枝的终点领先 0.026 比特/字节，90% 处领先 0.167，50% 处落后 0.007。
# - 三轮微调合计是模型自身训练量的五分之一：剪掉 20% 的权重时，失去的质量全部恢复；50% 处恢复 93%，80% 处 86%，90% 处 64%。
#   20% 和 50% 处，与训练同样久的未剪枝模型相差不超过 0.05 比特/字节，80% 和 90% 处做不到；这几个剪枝率之间的值没有测。
#
# **参考文献。** Han 等 2015，*Learning both Weights and Connections*；Zhu 与 Gupta 2017，
# *To prune, or not to prune*；Michel 等 2019，*Are Sixteen Heads Really Better than One?*；
# Mishra 等 2021，*Accelerating Sparse Deep Neural Networks*（2:4）。
#
# **延伸阅读。** Frankle 与 Carbin 2019，*The Lottery Ticket Hypothesis*，把留下的权重重置为初始值再训练；
# Frantar 与 Alistarh 2023，*SparseGPT*，利用输入的二阶矩来剪枝，正如 GPTQ 利用它来舍入。
#
# **下一篇：** 本章让模型变小；[12 · 数据并行](12_data_parallel.ipynb) 把计算分配到多个进程。
